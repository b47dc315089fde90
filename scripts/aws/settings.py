"""Settings of the account that every script needs: from flags, else from the environment, else from byoc.toml."""

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from container_train.errors import did_you_mean
from scripts.aws import names
from scripts.aws.account import Aws, check_region
from scripts.aws.errors import NO_REGION, CloudError
from scripts.aws.names import BUCKET, BUCKET_WORDS, PROJECT_TAG, Role, S3Uri
from scripts.console.command import key_values, toml
from scripts.environment import ROOT

FILE = "byoc.toml"
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d\Z")
_PROJECT = re.compile(r"[a-z0-9](?:-?[a-z0-9]){0,23}\Z")
_LISTS = frozenset({"subnets", "security_groups"})

# key of byoc.toml: (environment variables, metavar, help). The flag is --key with dashes.
KEYS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "region": (("AWS_REGION", "AWS_DEFAULT_REGION"), "REGION", "such as eu-central-1"),
    "role": (("BYOC_ROLE",), "ARN", "the execution role SageMaker assumes"),
    "bucket": (("BYOC_BUCKET",), "BUCKET", "in S3 (default: sagemaker-REGION-ACCOUNT)"),
    "project": (
        ("BYOC_PROJECT",), "NAME", "beginning of all names, S3 prefix, value of the tag byoc-project (default: byoc)"
    ),
    "tags": (("BYOC_TAGS",), "KEY=VALUE,...", "more tags on everything that is made"),
    "subnets": (("BYOC_SUBNETS",), "ID,ID", "subnets of your VPC; with --security-groups"),
    "security_groups": (("BYOC_SECURITY_GROUPS",), "ID,ID", "security groups of your VPC"),
    "output_kms_key": (("BYOC_OUTPUT_KMS_KEY",), "KEY", "KMS key for what is written to S3 and ECR"),
    "volume_kms_key": (("BYOC_VOLUME_KMS_KEY",), "KEY", "KMS key for the instances' volumes"),
}  # fmt: skip


RESOURCE_KEYS = tuple(key for key in KEYS if key != "region")  # those of whatever makes jobs, models and roles


@dataclass(frozen=True)
class Settings:
    region: str | None = None
    role: Role | None = None
    bucket: str | None = None
    project: str = "byoc"
    tags: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    output_kms_key: str | None = None
    volume_kms_key: str | None = None
    allow_unknown: bool = False  # words that boto3 here does not know, but the service may

    def need_region(self) -> str:
        if self.region is None:
            profile = os.environ.get("AWS_PROFILE")
            raise CloudError(f"{NO_REGION} (AWS_PROFILE={profile} has none)" if profile else NO_REGION, 2)
        if not self.allow_unknown:
            check_region(self.region)
        return self.region

    def aws(self) -> Aws:
        """The account in this region. Raises CloudError where there is none, or no such region."""
        return Aws(self.need_region(), allow_unknown=self.allow_unknown)

    def need_role(self) -> Role:
        if self.role is None:
            where = "--role arn:aws:iam::ACCOUNT:role/NAME, BYOC_ROLE, or byoc.toml"
            raise CloudError(f"no role: give {where} (docs/aws.md says how to make one)", 2)
        return self.role

    def home(self) -> S3Uri:
        """s3://BUCKET/PROJECT, under which everything of this project lies. The account is the role's."""
        if self.bucket is None:
            self.need_region()
        if self.bucket is None and self.role is None:
            raise CloudError("no bucket: give --bucket, or a --role, whose account's default bucket is taken", 2)
        bucket = self.bucket or names.default_bucket(self.need_region(), self.need_role().account)
        return S3Uri(bucket, self.project)

    def all_tags(self) -> dict[str, str]:
        return {PROJECT_TAG: self.project, **self.tags}

    def vpc(self) -> dict[str, list[str]] | None:
        """As SageMaker takes VpcConfig; None outside a VPC of one's own."""
        if not self.subnets:
            return None
        return {"Subnets": list(self.subnets), "SecurityGroupIds": list(self.security_groups)}


def add_flags(parser: argparse.ArgumentParser, *keys: str) -> None:
    """The flags of these KEYS (region always), and --config."""
    group = parser.add_argument_group("settings", f"from flags, else from the environment, else from {FILE}")
    for key in dict.fromkeys(("region", *keys)):
        variables, metavar, text = KEYS[key]
        group.add_argument(f"--{key.replace('_', '-')}", metavar=metavar, help=f"{text} [{', '.join(variables)}]")
    group.add_argument(
        "--allow-unknown", action="store_true", help="send what this boto3 does not know: regions, types"
    )
    group.add_argument("--config", metavar="FILE", type=Path, help=f"in place of {FILE} in the repository's root")


def load(flags: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of one call. Raises CloudError naming the flag, variable or line of the file that is wrong."""
    config = getattr(flags, "config", None)
    file = _file(config)
    values: dict[str, Any] = {}
    for key, (variables, *_) in KEYS.items():
        sources = [
            (getattr(flags, key, None), f"--{key.replace('_', '-')}"),
            *((environment.get(name) or None, name) for name in variables),
            (file.get(key), f"{config or FILE}: {key}"),
        ]
        value, source = next((pair for pair in sources if pair[0] is not None), (None, ""))
        if value is not None:
            values[key] = _checked(key, value, source)
    if "region" not in values and (region := _region_of_profile(environment)):
        values["region"] = region
    settings = Settings(**values, allow_unknown=getattr(flags, "allow_unknown", False))
    if bool(settings.subnets) != bool(settings.security_groups):
        raise CloudError("a VPC needs both --subnets and --security-groups", 2)
    return settings


def _file(path: Path | None) -> dict[str, Any]:
    usual = ROOT / FILE
    if path is None and not usual.exists():
        return {}
    path = path or usual
    content = toml(path, "--config")
    for key in content:
        if key not in KEYS:
            known = did_you_mean(key, KEYS, f"known are {', '.join(KEYS)}")
            raise CloudError(f"{path}: unknown key {key!r}: {known}", 2)
    return content


def _checked(key: str, value: Any, source: str) -> object:
    """The value of a key in its own type; `source` says in an error where it came from."""

    def need(right: object, expected: str) -> None:
        if not right:
            raise CloudError(f"{source} has value {value!r}: expected {expected}", 2)

    if key == "tags":
        if isinstance(value, str):
            pairs = key_values([pair for pair in value.split(",") if pair.strip()], source)
            value = {name: text.strip() for name, text in pairs.items()}
        is_table = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        need(is_table, 'a table of strings: { team = "vision" }')
        own = PROJECT_TAG in value or any(name.lower().startswith("aws:") for name in value)
        need(not own, f"other keys than {PROJECT_TAG} and aws:...")
        return value
    if key in _LISTS:
        items = value.split(",") if isinstance(value, str) else value
        is_list = isinstance(items, list) and all(isinstance(item, str) and item.strip() for item in items)
        need(is_list, "a list of ids such as subnet-0a1b2c3d,subnet-4e5f6a7b")
        return tuple(item.strip() for item in items)
    need(isinstance(value, str) and value, "a string")
    need(key != "region" or _REGION.match(value), "a region such as eu-central-1")
    need(key != "project" or _PROJECT.match(value), "small letters, digits and single -, at most 24")
    if key == "bucket":
        value = value.removeprefix("s3://").rstrip("/")
        need(BUCKET.match(value), f"a bucket's name, {BUCKET_WORDS}")
    return Role.parse(value, source) if key == "role" else value


def _region_of_profile(environment: Mapping[str, str]) -> str | None:
    """Return the settings that `aws configure` has written; files only, no network."""
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    try:
        region = botocore.session.Session(profile=environment.get("AWS_PROFILE")).get_config_variable("region")
    except ProfileNotFound:
        return None  # said where credentials are asked for
    return str(region) if region else None
