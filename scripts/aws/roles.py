"""The execution role SageMaker assumes: who may assume it, and what it may do, as the files in scripts/iam say it."""

import json
from typing import Any

from scripts.aws import names
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.environment import ROOT

FOLDER = ROOT / "scripts" / "iam"
POLICY_NAME = "byoc"

_USE_OF_KEYS = ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*"]


def policy(name: str, settings: Settings, partition: str, account: str) -> dict[str, Any]:
    """The document scripts/iam/NAME.json for this project, bucket and account."""
    bucket = settings.bucket or names.default_bucket(settings.region or "*", account)
    text = (FOLDER / f"{name}.json").read_text()
    for general, own in (
        ("arn:aws:s3:::sagemaker-*", f"arn:aws:s3:::{bucket}"),
        ("/byoc", f"/{settings.project}"),
        (":byoc", f":{settings.project}"),
        ("byoc-sagemaker", f"{settings.project}-sagemaker"),
        (":*:*:", f":{settings.region or '*'}:{account}:"),
        ("arn:aws:", f"arn:{partition}:"),
    ):
        text = text.replace(general, own)
    document: dict[str, Any] = json.loads(text)
    return document


def role_policy(settings: Settings, partition: str, account: str) -> dict[str, Any]:
    """Return the role's permissions: role.json, and what a VPC (vpc.json) and KMS keys need where they are set."""
    document = policy("role", settings, partition, account)
    if settings.subnets:
        document["Statement"] += policy("vpc", settings, partition, account)["Statement"]
    keys = sorted({key for key in (settings.output_kms_key, settings.volume_kms_key) if key})
    # A policy names a key by its ARN only: an alias in that place would match the alias, and no key.
    aliases = [key for key in keys if key.rpartition(":")[2].startswith("alias/")]
    own = f"arn:{partition}:kms:*:{account}"
    arns = [key if key.startswith("arn:") else f"{own}:key/{key}" for key in keys if key not in aliases]
    if arns:
        document["Statement"].append({"Sid": "Keys", "Effect": "Allow", "Action": _USE_OF_KEYS, "Resource": arns})
    if aliases:
        named = [key.rpartition(":")[2] for key in aliases]
        anywhere = {f"{key.rpartition(':')[0] or own}:key/*" for key in aliases}
        document["Statement"].append(
            {
                "Sid": "KeysByTheirAliases",
                "Effect": "Allow",
                "Action": _USE_OF_KEYS,
                "Resource": sorted(anywhere),
                "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": named}},
            }
        )
    return document


def requests(name: str, settings: Settings, partition: str, account: str) -> list[Request]:
    """CreateRole and PutRolePolicy; the second also brings a role that is there up to date."""
    trust = json.dumps(policy("trust", settings, partition, account))
    document = json.dumps(role_policy(settings, partition, account))
    create = {
        "RoleName": name,
        "AssumeRolePolicyDocument": trust,
        "Description": "Assumed by SageMaker for training jobs and endpoints",
        "Tags": names.tag_list(settings.all_tags()),
    }
    put = {"RoleName": name, "PolicyName": POLICY_NAME, "PolicyDocument": document}
    return [Request("iam", "CreateRole", create), Request("iam", "PutRolePolicy", put)]
