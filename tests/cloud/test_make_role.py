"""The role: made, brought up to date, removed; somebody else's left alone."""

import json

import pytest
from boto3 import Session

from scripts import make_role
from tests.cloud.conftest import ACCOUNT, REGION, Call
from tests.cloud.flaky_aws import FlakyAws

VPC = ("--subnets", "subnet-0a1b2c3d", "--security-groups", "sg-0a1b2c3d")
ID = "1234abcd-12ab-34cd-56ef-1234567890ab"


def rights(session: Session, name: str = "byoc-sagemaker") -> list[dict[str, object]]:
    answer = session.client("iam").get_role_policy(RoleName=name, PolicyName="byoc")
    statements: list[dict[str, object]] = answer["PolicyDocument"]["Statement"]
    return statements


def test_made_updated_and_removed(aws: Session, call: Call) -> None:
    assert call(make_role).out == f"arn:aws:iam::{ACCOUNT}:role/byoc-sagemaker\n"
    iam = aws.client("iam")
    assert iam.list_role_tags(RoleName="byoc-sagemaker")["Tags"] == [{"Key": "byoc-project", "Value": "byoc"}]
    trust = iam.get_role(RoleName="byoc-sagemaker")["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust[0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    data, found, images, *_ = rights(aws)
    assert data["Resource"] == f"arn:aws:s3:::sagemaker-{REGION}-{ACCOUNT}/byoc/*"
    assert found["Resource"] == f"arn:aws:s3:::sagemaker-{REGION}-{ACCOUNT}"
    assert images["Resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/byoc-*"
    assert "NetworkInterfaces" not in {statement["Sid"] for statement in rights(aws)}

    assert "already exists" in call(make_role, *VPC, "--volume-kms-key", ID).err
    assert {"NetworkInterfaces", "Keys"} <= {statement["Sid"] for statement in rights(aws)}

    assert call(make_role, "--delete").code == 0
    assert iam.list_roles()["Roles"] == []
    call(make_role, "--delete").says("nothing to do")


@pytest.mark.parametrize("flag", ["--output-kms-key", "--volume-kms-key"])
@pytest.mark.parametrize(("key", "resource", "aliases"), [
    (ID, [f"arn:aws:kms:*:{ACCOUNT}:key/{ID}"], None),
    (f"arn:aws:kms:{REGION}:999999999999:key/{ID}", [f"arn:aws:kms:{REGION}:999999999999:key/{ID}"], None),
    ("alias/dogs", [f"arn:aws:kms:*:{ACCOUNT}:key/*"], ["alias/dogs"]),
    (f"arn:aws:kms:{REGION}:999999999999:alias/dogs", [f"arn:aws:kms:{REGION}:999999999999:key/*"], ["alias/dogs"]),
])  # fmt: skip
def test_a_key_by_its_id_its_arn_or_its_alias(
    aws: Session, call: Call, flag: str, key: str, resource: object, aliases: list[str] | None
) -> None:
    """An alias is no resource of a policy: the keys are named by the aliases that they have."""
    assert call(make_role, flag, key).code == 0
    (statement,) = [one for one in rights(aws) if str(one["Sid"]).startswith("Keys")]
    assert statement["Resource"] == resource
    condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": aliases}} if aliases else None
    assert statement.get("Condition") == condition


@pytest.mark.parametrize("operation", ["CreateRole", "PutRolePolicy", "DeleteRolePolicy", "DeleteRole"])
def test_a_role_whose_answer_is_lost(aws: Session, call: Call, flaky: FlakyAws, operation: str) -> None:
    flaky.break_after(operation)
    assert call(make_role, "--output-kms-key", "alias/dogs", "--volume-kms-key", ID).code == 0
    assert {"Keys", "KeysByTheirAliases"} <= {statement["Sid"] for statement in rights(aws)}
    assert call(make_role, "--delete").code == 0
    assert aws.client("iam").list_roles()["Roles"] == []


def test_another_project_and_bucket_are_named_in_its_rights(aws: Session, call: Call) -> None:
    assert call(make_role, "--project", "birds", "--bucket", "my-birds").code == 0
    data, _, images, *_ = rights(aws, "birds-sagemaker")
    assert data["Resource"] == "arn:aws:s3:::my-birds/birds/*"
    assert images["Resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/birds-*"


@pytest.mark.parametrize("flags", [(), ("--delete",)])
def test_somebody_elses_role_is_left_alone(aws: Session, call: Call, flags: tuple[str, ...]) -> None:
    aws.client("iam").create_role(RoleName="byoc-sagemaker", AssumeRolePolicyDocument="{}")
    call(make_role, *flags).says("has no tag byoc-project=byoc", code=1)
    assert aws.client("iam").list_role_policies(RoleName="byoc-sagemaker")["PolicyNames"] == []


def test_dry_run_needs_no_account(call: Call) -> None:
    create, put = call(make_role, "--account", ACCOUNT, "--region", REGION, "--dry-run", *VPC).json
    assert (create["service"], create["operation"], put["operation"]) == ("iam", "CreateRole", "PutRolePolicy")
    assert create["request"]["RoleName"] == "byoc-sagemaker"
    assert json.loads(put["request"]["PolicyDocument"])["Statement"][-1]["Sid"] == "NetworkInterfaces"
    assert call(make_role, "--region", REGION, "--dry-run").code == 2
    assert call(make_role, "--region", REGION, "--dry-run", "--account", "12").code == 2
