"""deploy.py looks whether the image can serve the artifact, before it makes anything."""

from pathlib import Path

import boto3
import pytest

from scripts import deploy
from scripts.aws.errors import CloudError
from scripts.images import registry
from tests.cloud import models
from tests.cloud.conftest import BUCKET, KEY, MODEL, Call
from tests.cloud.test_deploy import CALL, DOGS, LABELS, NOTHING, account, fast, image, made
from tests.conftest import Patch

__all__ = ["account", "fast", "image"]  # fixtures
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


@pytest.mark.parametrize(("labels", "change", "code", "complaint"), OURS)
def test_what_the_image_cannot_serve(
    account: boto3.Session, image: dict[str, str], tmp_path: Path, call: Call, labels: dict[str, str], change: str,
    code: int, complaint: str,
) -> None:  # fmt: skip
    image.update(labels)
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path / "changed", change))
    ended = call(deploy, *CALL)
    assert (ended.code, complaint in ended.last) == (code, True), ended.err
    assert code == 2 or MODEL in ended.last
    assert "/tmp" not in ended.last
    assert made(account) == NOTHING


@pytest.mark.parametrize("missing", [TITLE, VERSION])
def test_what_an_image_of_others_serves_is_its_own_affair(
    account: boto3.Session, image: dict[str, str], call: Call, missing: str
) -> None:
    del image[missing]
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=b"of others")
    ended = call(deploy, *CALL)
    assert (ended.code, f"whether it can serve {MODEL} was not checked" in ended.err) == (0, True), ended.err
    assert made(account) == DOGS


def test_own_code_is_served_by_the_image_for_it(
    account: boto3.Session, image: dict[str, str], tmp_path: Path, call: Call
) -> None:
    image[TITLE] = "byoc-serve-torch"
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path / "changed", "own code"))
    assert call(deploy, *CALL).code == 0
    assert made(account) == DOGS


def test_what_is_missing_is_said_in_one_line(
    aws: boto3.Session, image: dict[str, str], call: Call, monkeypatch: Patch
) -> None:
    labels = dict(image)
    image.clear()  # of others: nothing is checked, but the object has to be there
    assert f"{MODEL} is not there" in call(deploy, *CALL).last
    image.update(labels)
    assert f"{MODEL} is not there" in call(deploy, *CALL).last
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=b"anything")
    assert "not a .tar.gz archive" in call(deploy, *CALL).last
    assert "make the bucket" in call(deploy, *CALL, "--model-data", "s3://not-a-bucket-of-ours/model.tar.gz").last

    def missing(aws: object, image: object) -> str:
        raise CloudError("the image is not in ECR: push it with scripts/push.sh")

    monkeypatch.setattr(registry, "find", missing)
    ended = call(deploy, *CALL)
    assert (ended.code, "not in ECR" in ended.last) == (1, True)
    assert made(aws) == NOTHING
