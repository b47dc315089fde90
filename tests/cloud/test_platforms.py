"""Processors and instance pools of endpoints: what is refused before anything is made, and what is asked for."""

from pathlib import Path

import boto3
import pytest
from moto.sagemaker.models import FakeEndpointConfig

from scripts import deploy
from scripts.endpoints import lookup
from scripts.images import registry
from tests.cloud import models
from tests.cloud.conftest import Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_deploy import BUCKET, CALL, KEY, LABELS, MODEL, NOTHING, OFFLINE, made
from tests.conftest import Patch

POOLS = "ml.m5.large,ml.c5.large"


@pytest.fixture
def account(aws: boto3.Session, tmp_path: Path, monkeypatch: Patch) -> boto3.Session:
    """An account with a model, and an image whose architecture a test says."""
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(registry, "find", lambda aws, image: "sha256:" + "0" * 64)
    monkeypatch.setattr(registry, "image_labels", lambda aws, image: dict(LABELS))
    # moto's list of types is older than Graviton, and it knows no pools.
    monkeypatch.setattr(FakeEndpointConfig, "validate_production_variants", lambda *_: None)
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path))
    return aws


@pytest.mark.parametrize(
    ("image", "flags", "needed", "takes"),
    [
        ("amd64", ("--instance-type", "ml.c7g.large"), "linux/arm64", "ml.m5.large"),
        ("amd64", ("--instance-type", "ml.c8g.large,ml.m8g.large"), "linux/arm64", "ml.m5.large"),
        (
            "amd64",
            ("--multi-model", f"s3://{BUCKET}/byoc/models", "--instance-type", "ml.r8g.large"),
            "linux/arm64",
            "",
        ),
        ("arm64", (), "linux/amd64", "ml.c7g.large"),
        ("arm64", ("--serverless", "2048"), "linux/amd64", "ml.c7g.large"),
        ("arm64", ("--register", "byoc-dogs"), "linux/amd64", "ml.c7g.large"),
    ],
)
def test_an_image_for_other_processors_is_refused_before_anything_is_made(
    account: boto3.Session, monkeypatch: Patch, call: Call, image: str, flags: tuple[str, ...], needed: str, takes: str
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    what = ("--model-data", MODEL) if "--multi-model" not in flags else ()
    ended = call(deploy, *CALL[:2], *what, *flags)
    assert (ended.code, f"needs an image for {needed}, and" in ended.last) == (2, True)
    assert f"scripts/push.sh serve --platform {needed}" in ended.last
    assert takes in ended.last
    assert made(account) == NOTHING
    assert account.client("sagemaker").list_model_packages()["ModelPackageSummaryList"] == []


@pytest.mark.parametrize(("image", "kind"), [("arm64", "ml.c7g.large"), ("arm64", "ml.m8g.large,ml.c8g.large"),
                                             ("amd64", "ml.m5.large"), (None, "ml.c7g.large")])  # fmt: skip
def test_an_image_for_the_instances_processors_is_deployed(
    account: boto3.Session, monkeypatch: Patch, call: Call, image: str | None, kind: str
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    assert call(deploy, *CALL, "--instance-type", kind).code == 0


def test_a_version_of_an_image_for_arm_names_instances_that_have_it(
    account: boto3.Session, monkeypatch: Patch, call: Call
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: "arm64")
    assert call(deploy, *CALL[:4], "--register", "byoc-dogs", "--instance-type", "ml.c7g.large").code == 0
    client = account.client("sagemaker")
    (version,) = client.list_model_packages(ModelPackageGroupName="byoc-dogs")["ModelPackageSummaryList"]
    found = client.describe_model_package(ModelPackageName=version["ModelPackageArn"])["InferenceSpecification"]
    assert found["SupportedRealtimeInferenceInstanceTypes"] == ["ml.c7g.large"]
    assert not found.get("SupportedTransformInstanceTypes")


def test_pools_are_asked_for_in_their_order(call: Call) -> None:
    flags = ("--model-data", MODEL, "--name", "byoc-dogs", "--instance-type", POOLS, "--dry-run")
    (variant,) = call(deploy, *OFFLINE, *flags).json[1]["request"]["ProductionVariants"]
    assert "InstanceType" not in variant
    assert variant["InstancePools"] == [
        {"InstanceType": "ml.m5.large", "Priority": 1},
        {"InstanceType": "ml.c5.large", "Priority": 2},
    ]


def test_an_endpoint_with_pools_is_updated_and_listed(account: boto3.Session, flaky: FlakyAws, call: Call) -> None:
    ended = call(deploy, *CALL, "--instance-type", POOLS, "--json")
    assert ended.json["usd_per_hour"] == 0.115
    assert "1 x ml.m5.large or ml.c5.large: 0.12 USD an hour" in ended.err
    ended = call(deploy, *CALL, "--update")
    assert (ended.code, f"runs on 1 x {POOLS}: say with --instance-type" in ended.last) == (2, True)
    assert call(deploy, *CALL, "--update", "--instance-type", POOLS.replace(",", ", ")).code == 0
