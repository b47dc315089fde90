"""Processors and instance pools of endpoints: what is refused before anything is made, and what is asked for."""

import json
from pathlib import Path

import boto3
import pytest
from moto.sagemaker.models import FakeEndpointConfig

from scripts import deploy
from scripts.console.command import run
from scripts.endpoints import lookup
from scripts.images import registry
from tests.cloud import models
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_deploy import BUCKET, CALL, KEY, LABELS, MODEL, NOTHING, OFFLINE, last_line, made

POOLS = "ml.m5.large,ml.c5.large"


def call(*arguments: str) -> int:
    return run("deploy.py", deploy.main, arguments)


@pytest.fixture
def account(aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
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
    account: boto3.Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image: str,
    flags: tuple[str, ...],
    needed: str,
    takes: str,
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    what = ("--model-data", MODEL) if "--multi-model" not in flags else ()
    assert call(*CALL[:2], *what, *flags) == 2
    said = last_line(capsys)
    assert f"needs an image for {needed}, and" in said
    assert f"scripts/push.sh serve --platform {needed}" in said
    assert takes in said
    assert made(account) == NOTHING
    assert account.client("sagemaker").list_model_packages()["ModelPackageSummaryList"] == []


@pytest.mark.parametrize(("image", "kind"), [("arm64", "ml.c7g.large"), ("arm64", "ml.m8g.large,ml.c8g.large"),
                                             ("amd64", "ml.m5.large"), (None, "ml.c7g.large")])  # fmt: skip
def test_an_image_for_the_instances_processors_is_deployed(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, image: str | None, kind: str
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    assert call(*CALL, "--instance-type", kind) == 0


def test_a_version_of_an_image_for_arm_names_instances_that_have_it(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: "arm64")
    assert call(*CALL[:4], "--register", "byoc-dogs", "--instance-type", "ml.c7g.large") == 0
    client = account.client("sagemaker")
    (version,) = client.list_model_packages(ModelPackageGroupName="byoc-dogs")["ModelPackageSummaryList"]
    found = client.describe_model_package(ModelPackageName=version["ModelPackageArn"])["InferenceSpecification"]
    assert found["SupportedRealtimeInferenceInstanceTypes"] == ["ml.c7g.large"]
    assert not found.get("SupportedTransformInstanceTypes")


def test_pools_are_asked_for_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model-data", MODEL, "--name", "byoc-dogs", "--instance-type", POOLS, "--dry-run")
    assert call(*OFFLINE, *flags) == 0
    (variant,) = json.loads(capsys.readouterr().out)[1]["request"]["ProductionVariants"]
    assert "InstanceType" not in variant
    assert variant["InstancePools"] == [
        {"InstanceType": "ml.m5.large", "Priority": 1},
        {"InstanceType": "ml.c5.large", "Priority": 2},
    ]


def test_an_endpoint_with_pools_is_updated_and_listed(
    account: boto3.Session, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*CALL, "--instance-type", POOLS, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["usd_per_hour"] == 0.115
    assert "1 x ml.m5.large or ml.c5.large: 0.12 USD an hour" in captured.err
    assert call(*CALL, "--update") == 2
    assert f"runs on 1 x {POOLS}: say with --instance-type" in last_line(capsys)
    assert call(*CALL, "--update", "--instance-type", POOLS.replace(",", ", ")) == 0
