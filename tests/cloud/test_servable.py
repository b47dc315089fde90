"""deploy.py looks whether the image can serve the artifact, and run on the instances, before it makes anything."""

from pathlib import Path

import pytest
from boto3 import Session
from moto.sagemaker.models import FakeEndpointConfig

from scripts import deploy
from scripts.aws.errors import CloudError
from scripts.images import registry
from tests.cloud import models
from tests.cloud.conftest import BUCKET, CALL, HERE, KEY, LABELS, MODEL, Call
from tests.cloud.resources import DOGS, NOTHING, put, there
from tests.conftest import Patch

TITLE, VERSION = LABELS
OURS: list[tuple[dict[str, str], str, int, str]] = [
    ({}, "newer", 1, "format_version 99"),
    ({}, "without model.json", 1, "model.json: missing"),
    ({}, "cut", 1, "is damaged"),
    ({}, "flipped", 1, "model.bin: corrupt"),
    ({}, "nested", 1, "is in inner/ inside the archive"),
    ({}, "own code", 1, "serve-torch"),
    ({VERSION: "0"}, "", 1, "reads up to 0: serve it with a newer image"),
    ({TITLE: "byoc-train"}, "", 2, "the image that trains"),
]


@pytest.mark.parametrize(("changed", "change", "code", "complaint"), OURS)
def test_what_the_image_cannot_serve(
    account: Session, labels: dict[str, str], tmp_path: Path, call: Call, changed: dict[str, str], change: str,
    code: int, complaint: str,
) -> None:  # fmt: skip
    labels.update(changed)
    put(account, KEY, models.archive(tmp_path / "changed", change))
    ended = call(deploy, *CALL).ends(code, complaint)
    assert code == 2 or MODEL in ended.last
    assert "/tmp" not in ended.last
    assert there(account) == NOTHING


@pytest.mark.parametrize("missing", [TITLE, VERSION])
def test_what_an_image_of_others_serves_is_its_own_affair(
    account: Session, labels: dict[str, str], call: Call, missing: str
) -> None:
    del labels[missing]
    put(account, KEY, b"of others")
    call(deploy, *CALL).says(f"whether it can serve {MODEL} was not checked")
    assert there(account) == DOGS


def test_own_code_is_served_by_the_image_for_it(
    account: Session, labels: dict[str, str], tmp_path: Path, call: Call
) -> None:
    labels[TITLE] = "byoc-serve-torch"
    put(account, KEY, models.archive(tmp_path / "changed", "own code"))
    assert call(deploy, *CALL).code == 0
    assert there(account) == DOGS


def test_what_is_missing_is_said_in_one_line(
    aws: Session, labels: dict[str, str], call: Call, monkeypatch: Patch
) -> None:
    labels.clear()  # of others: nothing is checked, but the object has to be there
    assert f"{MODEL} is not there" in call(deploy, *CALL).last
    labels.update(LABELS)
    assert f"{MODEL} is not there" in call(deploy, *CALL).last
    put(aws, KEY, b"anything")
    assert "not a .tar.gz archive" in call(deploy, *CALL).last
    elsewhere = ["s3://not-a-bucket-of-ours/model.tar.gz" if word == MODEL else word for word in CALL]
    assert "make the bucket" in call(deploy, *elsewhere).last

    def missing(aws: object, image: object) -> str:
        raise CloudError("the image is not in ECR: push it with scripts/push.sh")

    monkeypatch.setattr(registry, "find", missing)
    call(deploy, *CALL).ends(1, "not in ECR")
    assert there(aws) == NOTHING


# Processors and instance pools


POOLS = "ml.m5.large,ml.c5.large"


@pytest.fixture(autouse=True)
def moto(monkeypatch: Patch) -> None:
    """Its list of types is older than Graviton, and it knows no pools."""
    monkeypatch.setattr(FakeEndpointConfig, "validate_production_variants", lambda *_: None)


@pytest.mark.parametrize(
    ("image", "flags", "needed", "takes"),
    [
        ("amd64", ("--instance-type", "ml.c7g.large"), "linux/arm64", "ml.m5.large"),
        ("amd64", ("--instance-type", "ml.c8g.large,ml.m8g.large"), "linux/arm64", "ml.m5.large"),
        ("amd64", ("--multi-model", f"s3://{BUCKET}/m", "--instance-type", "ml.r8g.large"), "linux/arm64", ""),
        ("arm64", (), "linux/amd64", "ml.c7g.large"),
        ("arm64", ("--serverless", "2048"), "linux/amd64", "ml.c7g.large"),
        ("arm64", ("--register", "byoc-dogs"), "linux/amd64", "ml.c7g.large"),
    ],
)
def test_an_image_for_other_processors_is_refused_before_anything_is_made(
    account: Session, monkeypatch: Patch, call: Call, image: str, flags: tuple[str, ...], needed: str, takes: str
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    what = ("--model-data", MODEL) if "--multi-model" not in flags else ()
    ended = call(deploy, *CALL[:2], *what, *flags)
    ended.ends(2, f"needs an image for {needed}, and", f"scripts/push.sh serve --platform {needed}", takes)
    assert there(account) == NOTHING
    assert account.client("sagemaker").list_model_packages()["ModelPackageSummaryList"] == []


@pytest.mark.parametrize(("image", "kind"), [("arm64", "ml.c7g.large"), ("arm64", "ml.m8g.large,ml.c8g.large"),
                                             ("amd64", "ml.m5.large"), (None, "ml.c7g.large")])  # fmt: skip
def test_an_image_for_the_instances_processors_is_deployed(
    account: Session, monkeypatch: Patch, call: Call, image: str | None, kind: str
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: image)
    assert call(deploy, *CALL, "--instance-type", kind).code == 0


def test_a_version_of_an_image_for_arm_names_instances_that_have_it(
    account: Session, monkeypatch: Patch, call: Call
) -> None:
    monkeypatch.setattr(registry, "image_architecture", lambda aws, uri: "arm64")
    assert call(deploy, *CALL[:4], "--register", "byoc-dogs", "--instance-type", "ml.c7g.large").code == 0
    client = account.client("sagemaker")
    (version,) = client.list_model_packages(ModelPackageGroupName="byoc-dogs")["ModelPackageSummaryList"]
    found = client.describe_model_package(ModelPackageName=version["ModelPackageArn"])["InferenceSpecification"]
    assert found["SupportedRealtimeInferenceInstanceTypes"] == ["ml.c7g.large"]
    assert not found.get("SupportedTransformInstanceTypes")


def test_pools_are_asked_for_in_their_order_updated_and_listed(account: Session, call: Call) -> None:
    pools = (*CALL, "--instance-type", POOLS)
    (variant,) = call(deploy, *pools, *HERE, "--dry-run").requests[1]["ProductionVariants"]
    assert "InstanceType" not in variant
    assert variant["InstancePools"] == [
        {"InstanceType": "ml.m5.large", "Priority": 1},
        {"InstanceType": "ml.c5.large", "Priority": 2},
    ]
    ended = call(deploy, *pools, "--json").says("1 x ml.m5.large or ml.c5.large: 0.12 USD an hour")
    assert ended.json["usd_per_hour"] == 0.115
    call(deploy, *CALL, "--update").ends(2, f"runs on 1 x {POOLS}: say with --instance-type")
    assert call(deploy, *CALL, "--update", "--instance-type", POOLS.replace(",", ", ")).code == 0
