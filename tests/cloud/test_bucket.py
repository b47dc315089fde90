"""The bucket: made where it is the caller's own, and why another one, or what lies in it, cannot be used."""

from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from boto3 import Session

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.s3 import bucket as buckets
from scripts.s3 import storage
from tests.cloud.answers import error
from tests.cloud.conftest import ACCOUNT, BUCKET, REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.pictures import intercept
from tests.conftest import Patch

PREFIX = S3Uri(BUCKET, "byoc/data/pets")


@pytest.mark.parametrize("lost", ["", "CreateBucket", "PutPublicAccessBlock"])
def test_the_default_bucket_is_made_closed_to_the_public(aws: Session, flaky: FlakyAws, lost: str) -> None:
    s3 = aws.client("s3")
    s3.delete_bucket(Bucket=BUCKET)
    flaky.calls.clear()
    if lost:
        flaky.break_after(lost)
    buckets.require(Aws(REGION), BUCKET, create=True)
    closed = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    assert flaky.calls.count(lost) == (2 if lost else 0)
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == REGION


@pytest.mark.parametrize(
    ("bucket", "message"),
    [
        ("no-such-bucket", "s3://no-such-bucket is not there: make it with `aws s3 mb s3://no-such-bucket`"),
        (f"sagemaker-{REGION}-999999999999", "only account 999999999999 can make it"),
        (f"sagemaker-us-east-1-{ACCOUNT}", "only account 123456789012 can make it in us-east-1"),
        ("elsewhere", "s3://elsewhere is in us-east-1, and the region is eu-central-1"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_named(aws: Session, bucket: str, message: str, calls: list[str]) -> None:
    if bucket == "elsewhere":
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    with pytest.raises(CloudError) as caught:
        buckets.require(Aws(REGION), bucket, create=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not {"s3:PutObject", "s3:CreateBucket"} & set(calls)


@pytest.mark.parametrize(
    ("head", "code", "message"),
    [
        # An answer to HEAD can say no more than the status.
        ("403", "AccessDenied", f"may not be read: it belongs to another account than {ACCOUNT}, or the permission"),
        ("403", "ExpiredToken", "credentials are wrong or have expired"),
        ("404", "BucketAlreadyExists", f"{BUCKET} belongs to another account"),
    ],
)
def test_why_a_bucket_cannot_be_used_is_said(
    aws: Session, monkeypatch: Patch, head: str, code: str, message: str
) -> None:
    def before(operation: str, _: Mapping[str, Any]) -> None:
        if operation != "GetCallerIdentity":
            raise error(head if operation == "HeadBucket" else code, "no")

    intercept(monkeypatch, before)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (explained as command.run does)
        buckets.require(Aws(REGION), BUCKET, create=True)
    assert message in str(explain(caught.value))


def test_what_is_missing_to_train_on_is_named(aws: Session) -> None:
    s3 = aws.client("s3")

    def put(key: str, body: bytes = b"theirs") -> None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    put(f"{PREFIX.key}/train/", b"")
    for more, said in (
        ((), r"no images below train/ and valid/ and test/: send them, scripts/prepare"),
        (("train", "test"), "no images below valid/:"),
        (("validation",), r"rename validation/ to valid/ \(`aws s3 mv --recursive`\)"),
    ):
        for split in more:
            put(f"{PREFIX.key}/{split}/a/1.jpg")
        with pytest.raises(CloudError, match=said):
            storage.require_data(Aws(REGION), PREFIX)
    put(f"{PREFIX.key}/valid/a/1.jpg")
    put(f"{PREFIX.key}/manifest.json", b"somebody else's")
    storage.require_data(Aws(REGION), PREFIX)


def test_work_is_broken_off_at_the_first_error() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 20:
            raise ValueError("twenty")
        return number

    with pytest.raises(ValueError, match="twenty"):
        each(work, range(10**9), lambda number, _: done.append(number), threads=4)
    assert len(done) < 200
    with pytest.raises(RuntimeError, match="then"):
        each(work, range(10**9), lambda *_: (_ for _ in ()).throw(RuntimeError("then")), threads=4)
