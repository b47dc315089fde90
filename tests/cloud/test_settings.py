"""Settings: which source wins, and what is said of a wrong one."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.aws import settings
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, Role, S3Uri, unique
from scripts.aws.settings import KEYS, Settings
from tests.conftest import Patch

ROLE = "arn:aws:iam::123456789012:role/service-role/byoc"


def load(*arguments: str, file: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser, *KEYS)
    config = ["--config", str(file)] if file else []
    return settings.load(parser.parse_args([*arguments, *config]), env or {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "byoc.toml"
    path.write_text(
        f'region = "eu-west-1"\nrole = "{ROLE}"\nproject = "birds"\ntags = {{ team = "vision" }}\n'
        'subnets = ["subnet-1", "subnet-2"]\nsecurity_groups = ["sg-1"]\n'
    )
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    only_file = load(file=file)
    assert only_file.region == "eu-west-1"
    assert only_file.role == Role(ROLE, "aws", "123456789012")
    assert only_file.all_tags() == {"byoc-project": "birds", "team": "vision"}
    assert only_file.vpc() == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert str(only_file.home()) == "s3://sagemaker-eu-west-1-123456789012/birds"
    assert load(file=file, env={"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-east-2"}).region == "us-west-2"
    environment = {"AWS_REGION": "us-west-2", "BYOC_TAGS": "c=d"}
    both = load("--region", "us-east-1", "--tags", "a=b", file=file, env=environment)
    assert both.region == "us-east-1"
    assert both.tags == {"a": "b"}
    assert str(load("--bucket", "s3://mine/", file=file).home()) == "s3://mine/birds"
    # As Windows writes it.
    file.write_bytes(("\ufeff" + file.read_text()).replace("\n", "\r\n").encode())
    assert load(file=file) == only_file


def test_the_region_of_the_profile_is_the_last_resort(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "config").write_text("[default]\nregion = sa-east-1\n[profile work]\nregion = ca-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert load().region == "sa-east-1"
    assert load(env={"AWS_PROFILE": "work"}).region == "ca-central-1"
    assert load(env={"AWS_PROFILE": "work", "AWS_REGION": "us-west-2"}).region == "us-west-2"


def test_without_a_region_or_a_role_it_says_how_to_give_one(monkeypatch: Patch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with pytest.raises(CloudError, match=r"--region, set AWS_REGION, or write region.* into byoc.toml$"):
        load().need_region()
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    with pytest.raises(CloudError, match=r"no region: give --region.* \(AWS_PROFILE=wrok has none\)"):
        load().need_region()
    with pytest.raises(CloudError, match="--role arn:aws:iam::ACCOUNT:role/NAME, BYOC_ROLE"):
        load("--region", "us-east-1").need_role()
    with pytest.raises(CloudError, match="no bucket: give --bucket, or a --role"):
        load("--region", "us-east-1").home()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region", "Frankfurt"], "--region has value 'Frankfurt': expected a region such as eu-central-1"),
        (["--role", "byoc"], "--role has value 'byoc': expected arn:aws:iam::ACCOUNT:role/NAME"),
        (["--role", "arn:aws:iam::123456789012:user/me"], "expected arn:aws:iam::ACCOUNT:role/NAME"),
        (["--project", "My_Project"], "--project has value 'My_Project': expected small letters"),
        (["--bucket", "No_Bucket"], "--bucket has value 'No_Bucket': expected a bucket's name, 3 to 63 lower-case"),
        (["--tags", "team"], "--tags has value 'team': expected KEY=VALUE"),
        (["--tags", "a=b,a=c"], "--tags has a twice: 'b' and 'c'; give it once"),
        (["--tags", "byoc-project=x"], "expected other keys than byoc-project"),
        (["--tags", "aws:x=y"], "expected other keys than"),
        (["--subnets", "subnet-1,"], "expected a list of ids"),
        (["--subnets", "subnet-1"], "a VPC needs both"),
    ],
)
def test_a_wrong_value_is_named_with_its_source(arguments: list[str], message: str) -> None:
    with pytest.raises(CloudError) as error:
        load(*arguments)
    assert message in str(error.value)
    assert error.value.code == 2


def test_an_empty_variable_is_none_and_a_wrong_one_is_named() -> None:
    assert load(env={"BYOC_OUTPUT_KMS_KEY": ""}) == Settings()
    with pytest.raises(CloudError, match="AWS_REGION has value 'x'"):
        load(env={"AWS_REGION": "x"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('regoin = "eu-west-1"', "unknown key 'regoin': did you mean region"),
        ("x = 1", "unknown key 'x': known are region, role"),
        ("region = eu", "cannot be read: Invalid value .*: expected TOML, with texts in quotes: region = "),
        ("region = 1", "byoc.toml: region has value 1: expected a string"),
        ("tags = { team = 1 }", "byoc.toml: tags"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "byoc.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CloudError, match=message):
        load(file=path)
    with pytest.raises(CloudError, match=r"--config .*none\.toml: no such file"):
        load(file=tmp_path / "none.toml")
    with pytest.raises(CloudError, match=f"--config {tmp_path} cannot be read: Is a directory$"):
        load(file=tmp_path)


def test_image_uris() -> None:
    uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/byoc-train:0.1.0-abc"
    image = Image.parse(uri, "eu-west-1")
    parts = (image.account, image.repository, image.tag, image.digest)
    assert parts == ("123456789012", "team/byoc-train", "0.1.0-abc", None)
    assert Image.parse(f"{uri}@sha256:{'0' * 64}").digest == f"sha256:{'0' * 64}"
    assert Image.parse("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/x:1").region == "cn-north-1"
    for wrong, message in (
        ("byoc-train:1", "scripts/push.sh prints it"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/byoc-train", "has no tag"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/byoc-train:a b", "expected ACCOUNT"),
    ):
        with pytest.raises(CloudError, match=message):
            Image.parse(wrong)
    with pytest.raises(CloudError, match="is in eu-west-1, and the region is us-east-1"):
        Image.parse(uri, "us-east-1")


def test_s3_uris() -> None:
    assert S3Uri.parse("s3://bucket/a/b/", "--data") == S3Uri("bucket", "a/b")
    assert str(S3Uri.parse("s3://bucket", "--data") / "x" / "y") == "s3://bucket/x/y"
    for wrong in ("bucket/a", "https://bucket/a", "s3://B_cket/a", "s3:///a", "s3://"):
        with pytest.raises(CloudError, match="--data has value"):
            S3Uri.parse(wrong, "--data")


def test_unique_names_are_short_and_differ() -> None:
    made = {unique("byoc", "train") for _ in range(50)}
    assert len(made) > 45  # within one second four digits tell them apart
    assert all(name.startswith("byoc-train-2") and len(name) < 40 for name in made)
    assert len(unique("a" * 60, "b" * 60)) <= 63
