"""Uploads: nothing is sent twice, nothing is lost by a break, nothing that is somebody else's is touched."""

import functools
import hashlib
import json
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.exceptions import Boto3Error
from botocore.exceptions import EndpointConnectionError

from container_train.data import splits
from container_train.errors import DataError
from scripts.aws import requests as sending
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.aws.settings import Settings
from scripts.console.command import Interrupted
from scripts.s3 import bucket as buckets
from scripts.s3 import objects, storage, sync
from scripts.s3.manifest import Entry, Manifest, Stored
from scripts.s3.storage import Uploaded
from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.pictures import bodies, client_error, fill, intercept, jpeg, stored

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
PREFIX = S3Uri(BUCKET, "byoc/data/pets")
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@functools.cache
def _account(_endpoint: str) -> Aws:
    return Aws(REGION)


def account() -> Aws:
    """One for all tests of the same server: to make its client takes longer than most uploads here."""
    return _account(os.environ["AWS_ENDPOINT_URL"])


def items(root: Path) -> list[storage.Item]:
    return storage.items(splits.plan(root).splits)


def upload(root: Path, prefix: S3Uri = PREFIX, **settings: Any) -> Uploaded:
    return storage.upload(account(), items(root), prefix, Settings(region=REGION, **settings))


def there(session: boto3.Session) -> dict[str, bytes]:
    return stored(session, BUCKET, f"{PREFIX.key}/")


def manifest(session: boto3.Session) -> dict[str, Any]:
    answer = session.client("s3").get_object(Bucket=BUCKET, Key=f"{PREFIX.key}/manifest.json")
    content: dict[str, Any] = json.loads(answer["Body"].read())
    return content


def put(session: boto3.Session, key: str, body: bytes = b"theirs", bucket: str = BUCKET) -> None:
    session.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def fail_puts_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """After `count` pictures `error` meets the next ones, and, unless it is Ctrl-C, the manifest too."""
    lock, sent = threading.Lock(), Counter[str]()

    def before(operation: str, request: Mapping[str, Any]) -> None:
        picture = operation == "PutObject" and request["Key"].endswith(".jpg")
        if operation != "PutObject" or (isinstance(error, KeyboardInterrupt) and not picture):
            return
        with lock:
            if sent["all"] >= count:
                raise error
            sent["all"] += picture

    intercept(monkeypatch, before)


def test_all_arrives_and_the_manifest_says_what(aws: boto3.Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    size = sum(map(len, bodies(root).values()))
    assert upload(root) == Uploaded(sent=12, kept=0, deleted=0, bytes=size)
    assert there(aws) == bodies(root)
    content = manifest(aws)
    assert content["complete"] is True
    assert content["pending"] == []
    assert {key: (entry["sha256"], entry["bytes"]) for key, entry in content["files"].items()} == {
        key: (hashlib.sha256(body).hexdigest(), len(body)) for key, body in bodies(root).items()
    }
    head = aws.client("s3").head_object(Bucket=BUCKET, Key=f"{PREFIX.key}/train/001.cat/0000.jpg")
    assert head["ETag"].strip('"') == content["files"]["train/001.cat/0000.jpg"]["etag"]


def test_a_second_call_sends_nothing(aws: boto3.Session, tmp_path: Path, calls: list[str]) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    calls.clear()
    assert upload(root) == Uploaded(sent=0, kept=12, deleted=0, bytes=0)
    assert Counter(calls) == Counter(["s3:HeadBucket", "s3:GetObject", "s3:ListObjectsV2"])


def test_only_what_changed_is_sent_and_what_is_gone_is_deleted(
    aws: boto3.Session, tmp_path: Path, calls: list[str]
) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    (root / "train" / "001.cat" / "0000.jpg").write_bytes(jpeg(900))
    (root / "train" / "001.cat" / "new.jpg").write_bytes(jpeg(901))
    (root / "test" / "002.dog" / "0001.jpg").unlink()
    calls.clear()
    result = upload(root)
    assert (result.sent, result.kept, result.deleted) == (2, 10, 1)
    assert Counter(calls)["s3:PutObject"] == 2 + 2, "two pictures, the manifest before and after"
    assert there(aws) == bodies(root)
    assert set(manifest(aws)["files"]) == set(bodies(root))


@pytest.mark.parametrize("damage", ["overwritten", "of the same size", "deleted"])
def test_what_somebody_did_to_an_object_is_put_right(aws: boto3.Session, tmp_path: Path, damage: str) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    key = f"{PREFIX.key}/train/001.cat/0001.jpg"
    if damage == "deleted":
        aws.client("s3").delete_object(Bucket=BUCKET, Key=key)
    else:
        length = (root / "train/001.cat/0001.jpg").stat().st_size
        put(aws, key, b"x" * (length if damage == "of the same size" else 3))
    assert upload(root).sent == 1
    assert there(aws) == bodies(root)
    assert upload(root).sent == 0


def test_names_that_urls_would_change_come_back_as_they_were(aws: boto3.Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    folder = root / "train" / "001.cat"
    for number, name in enumerate(
        ["a b", "a+b", "a%20b", "%41", "Kätzchen", "猫", "a&b=c?d#e", "a'b\"c\\d", "a..b", "~"]
    ):
        (folder / f"{name}.jpg").write_bytes(jpeg(500 + number))
    odd = S3Uri(BUCKET, "byoc/data/a b+c%20ü")
    assert upload(root, odd).sent == 22
    assert stored(aws, BUCKET, f"{odd.key}/") == bodies(root)
    assert upload(root, odd).sent == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb.jpg", "control character"),
        ("a\x7f.jpg", "control character"),
        (b"\xff\xfe.jpg".decode("utf-8", "surrogateescape"), "not UTF-8"),
        ("ü" * 120 + ".jpg", "bytes, S3 takes 1024"),
    ],
)
def test_names_that_s3_cannot_hold_are_refused_before_anything_is_sent(tmp_path: Path, name: str, message: str) -> None:
    root = fill(tmp_path / "pets")
    (root / "train" / "001.cat" / name).write_bytes(jpeg(1))
    prefix = S3Uri(BUCKET, "p/" + "x" * 800)
    with pytest.raises(DataError, match=message) as caught:
        upload(root, prefix)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        storage.requests(items(root), prefix, Settings())


def test_a_prefix_with_dots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lost on the way"):
        upload(fill(tmp_path / "pets"), S3Uri(BUCKET, "a/../b"))


def test_more_than_5_gb_is_refused_and_an_empty_file_is_not(aws: boto3.Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    empty = root / "train" / "001.cat" / "empty.jpg"
    empty.touch()
    assert upload(root).sent == 13
    assert there(aws) == bodies(root)
    assert upload(root).sent == 0
    with empty.open("wb") as file:
        file.truncate(objects.MAX_BYTES)
    assert max(item.size for item in items(root)) == objects.MAX_BYTES
    with empty.open("wb") as file:
        file.truncate(objects.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"empty.jpg has 5.4 GB: S3 takes 5.4 GB in one request"):
        items(root)


def test_objects_of_others_are_left_alone(aws: boto3.Session, tmp_path: Path, calls: list[str]) -> None:
    root = fill(tmp_path / "pets")
    put(aws, f"{PREFIX.key}/train/001.cat/0000.jpg")
    put(aws, f"{PREFIX.key}/notes.txt")
    with pytest.raises(CloudError, match=r"2 objects below .*, such as .*notes.txt: give another"):
        upload(root)
    assert "s3:PutObject" not in calls
    assert set(there(aws)) == {"train/001.cat/0000.jpg", "notes.txt"}


def test_neighbours_and_empty_folder_objects_do_not_count(aws: boto3.Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    for key in (f"{PREFIX.key}/", f"{PREFIX.key}/train/", f"{PREFIX.key}/train/001.cat/"):
        put(aws, key, b"")
    put(aws, f"{PREFIX.key}2/theirs.jpg")
    assert upload(root).sent == 12
    assert upload(root).sent == 0
    assert stored(aws, BUCKET, f"{PREFIX.key}2/") == {"theirs.jpg": b"theirs"}


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b'{"made_by": "somebody"}',
        b'{"made_by": "byoc-image-classifier"}',
        b'{"made_by": "byoc-image-classifier", "format": 2}',
    ],
)
def test_another_programs_manifest_is_not_overwritten(aws: boto3.Session, tmp_path: Path, body: bytes) -> None:
    root = fill(tmp_path / "pets")
    put(aws, f"{PREFIX.key}/manifest.json", body)
    with pytest.raises(CloudError, match=r"manifest.json is no manifest that this program can read"):
        upload(root)
    assert there(aws) == {}


def test_a_network_that_is_gone_costs_only_what_was_on_the_wire(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    root = fill(tmp_path / "pets", 4)
    with monkeypatch.context() as patch:
        fail_puts_after(patch, 8, EndpointConnectionError(endpoint_url="https://s3"))
        with pytest.raises(
            CloudError, match=r"cannot be reached.*of 24 files are in s3://.*call the same again"
        ) as caught:
            upload(root)
    assert "\n" not in str(caught.value)
    arrived = len(there(aws))
    assert 8 <= arrived < 24
    assert manifest(aws)["complete"] is False
    calls.clear()
    result = upload(root)
    assert (result.sent, result.kept) == (24 - arrived, arrived)
    assert Counter(calls)["s3:PutObject"] == 24 - arrived + 2
    assert there(aws) == bodies(root)
    assert upload(root).sent == 0


def test_rights_that_end_half_way_are_named_and_what_arrived_is_noted(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    root = fill(tmp_path / "pets", 4)

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject" and "/test/" in request["Key"]:
            raise client_error("PutObject", "AccessDenied", "not authorized")

    with monkeypatch.context() as patch:
        intercept(patch, before)
        with pytest.raises(CloudError, match=r"PutObject: not authorized .* a permission is missing") as caught:
            upload(root)
    assert "\n" not in str(caught.value)
    known = set(manifest(aws)["files"])
    assert known <= set(there(aws))
    calls.clear()
    upload(root)
    assert Counter(calls)["s3:HeadObject"] <= len(there(aws)) - len(known)
    assert there(aws) == bodies(root)


def test_ctrl_c_says_what_is_there_and_how_to_go_on(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets", 4)
    with monkeypatch.context() as patch:
        fail_puts_after(patch, 8, KeyboardInterrupt())
        with pytest.raises(Interrupted, match=r"interrupted: \d+ of 24 files are in s3://\S+; call the same again"):
            upload(root)
    arrived = len(there(aws))
    result = upload(root)
    assert (result.sent, result.kept) == (24 - arrived, arrived)


def test_a_picture_that_goes_after_a_break_leaves_nothing_behind(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets", 4)
    with monkeypatch.context() as patch:
        fail_puts_after(patch, 16, EndpointConnectionError(endpoint_url="https://s3"))
        with pytest.raises(CloudError):
            upload(root)
    gone = [key for key in there(aws) if key.endswith("0000.jpg")]
    for key in gone:
        (root / key).unlink()
    assert upload(root).deleted == len(gone) > 0
    assert there(aws) == bodies(root)


def test_the_manifest_is_written_now_and_then(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr(sync, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sync, "SAVE_SHARE", math.inf)
    upload(fill(tmp_path / "pets"))
    assert Counter(calls)["s3:PutObject"] == 12 * 2 + 2


def test_of_two_uploads_at_once_one_ends_and_says_so(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first has sent three pictures, and runs to its end."""
    first, second = fill(tmp_path / "first", 4), fill(tmp_path / "second")
    lock, sent = threading.Lock(), Counter[str]()

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation != "PutObject" or not request["Key"].endswith(".jpg") or sent["second"]:
            return
        with lock:
            sent["first"] += 1
            if sent["first"] == 3:
                sent["second"] += 1
                upload(second)

    with monkeypatch.context() as patch:
        intercept(patch, before)
        # Which of them it is, and by what it notices, is a matter of threads.
        with pytest.raises(CloudError, match=r"another upload has written .* wait until it has ended|by somebody else"):
            upload(first)
    for key in set(there(aws)) - set(bodies(second)):
        aws.client("s3").delete_object(Bucket=BUCKET, Key=f"{PREFIX.key}/{key}")
    upload(second)
    assert there(aws) == bodies(second)


def test_an_object_that_another_adds_meanwhile_is_found(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets")

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject" and request["Key"].endswith("test/002.dog/0001.jpg"):
            put(aws, f"{PREFIX.key}/train/001.cat/theirs.jpg")

    with monkeypatch.context() as patch:
        intercept(patch, before)
        with pytest.raises(CloudError, match="changed by somebody else during the upload"):
            upload(root)
    assert manifest(aws)["complete"] is False


def test_a_manifest_whose_answer_was_lost_is_not_taken_for_anothers(aws: boto3.Session) -> None:
    mine, theirs = (Stored(account(), PREFIX, Settings()) for _ in range(2))
    content = Manifest({"a": Entry("0" * 64, 1, "e")})
    mine.write(content)
    mine.etag = None  # as if the first answer had never come, and boto3 had sent it again
    mine.write(content)
    with pytest.raises(CloudError, match="another upload"):
        theirs.write(content)
    with pytest.raises(CloudError, match="another upload"):
        theirs.write(content)
    mine.write(Manifest())


def test_a_file_that_changes_under_way_is_named(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets")

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject" and request["Key"].endswith("valid/001.cat/0000.jpg"):
            raise client_error("PutObject", "BadDigest", "The SHA256 you specified did not match")

    with monkeypatch.context() as patch:
        intercept(patch, before)
        with pytest.raises(
            CloudError, match=r"valid/001.cat/0000.jpg was changed while it was being sent: call this again"
        ):
            upload(root)
    upload(root)
    assert there(aws) == bodies(root)


def test_a_key_of_ones_own_encrypts_all_and_a_new_one_sends_all_again(aws: boto3.Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    assert upload(root).sent == 12
    assert upload(root, output_kms_key=KEY).sent == 12
    s3 = aws.client("s3")
    for key in (*bodies(root), "manifest.json"):
        head = s3.head_object(Bucket=BUCKET, Key=f"{PREFIX.key}/{key}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert upload(root, output_kms_key=KEY).sent == 0


@pytest.mark.parametrize("bucket", [BUCKET, "my-bucket"])
def test_dry_run_shows_what_is_sent(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    if bucket != BUCKET:
        aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    root = fill(tmp_path / "pets")
    prefix, settings = S3Uri(bucket, "pets"), Settings(region=REGION, output_kms_key=KEY)
    shown = {request.request["Key"]: request.request for request in storage.requests(items(root), prefix, settings)}
    sent: dict[str, dict[str, Any]] = {}

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject":
            body = request["Body"]
            sent[request["Key"]] = {**request, "Body": getattr(body, "name", "manifest.json")}

    intercept(monkeypatch, before)
    upload(root, prefix, output_kms_key=KEY)
    manifest_sent = sent["pets/manifest.json"]
    assert manifest_sent.pop("IfMatch", None)
    assert {key: {k: str(v) for k, v in request.items()} for key, request in sent.items()} == {
        key: {k: str(v) for k, v in request.items()} for key, request in shown.items()
    }
    # Nobody but its account may own a default bucket; another may lie in an account of its own.
    assert {request.get("ExpectedBucketOwner") for request in sent.values()} == {ACCOUNT if bucket == BUCKET else None}


@pytest.mark.parametrize("operation", ["CreateBucket", "PutPublicAccessBlock"])
def test_a_bucket_whose_answer_is_lost_is_closed_as_well(aws: boto3.Session, flaky: FlakyAws, operation: str) -> None:
    s3 = aws.client("s3")
    s3.delete_bucket(Bucket=BUCKET)
    flaky.calls.clear()
    flaky.break_after(operation)
    buckets.require(Aws(REGION), BUCKET, create=True)
    closed = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    assert flaky.calls.count(operation) == 2


def test_the_default_bucket_is_made_closed_to_the_public(aws: boto3.Session, tmp_path: Path) -> None:
    s3 = aws.client("s3")
    s3.delete_bucket(Bucket=BUCKET)
    assert upload(fill(tmp_path / "pets")).sent == 12
    closed = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == REGION


@pytest.mark.parametrize(
    ("bucket", "message"),
    [
        ("no-such-bucket", "s3://no-such-bucket is not there: make it with `aws s3 mb s3://no-such-bucket`"),
        (f"sagemaker-{REGION}-999999999999", "only account 999999999999 can make it"),
        (f"sagemaker-us-east-1-{ACCOUNT}", "only account 123456789012 can make it in us-east-1"),
        ("elsewhere", "s3://elsewhere lies in us-east-1, and the region is eu-central-1"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_named(
    aws: boto3.Session, tmp_path: Path, bucket: str, message: str, calls: list[str]
) -> None:
    if bucket == "elsewhere":
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    with pytest.raises(CloudError) as caught:
        upload(fill(tmp_path / "pets"), S3Uri(bucket, "pets"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not {"s3:PutObject", "s3:CreateBucket"} & set(calls)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", f"may not be read: it belongs to another account than {ACCOUNT}, or the permission"),
        ("ExpiredToken", "credentials are wrong or have expired"),
    ],
)
def test_why_a_bucket_cannot_be_read_is_said(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    from scripts.aws.errors import explain

    def before(operation: str, _: Mapping[str, Any]) -> None:
        if operation == "HeadBucket":
            raise client_error(operation, "403", "Forbidden")  # all that an answer to HEAD can say
        raise client_error(operation, code)

    intercept(monkeypatch, before)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (explained as command.run does)
        upload(fill(tmp_path / "pets"))
    assert message in str(explain(caught.value))


def test_a_name_that_somebody_else_took_is_not_used(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.client("s3").delete_bucket(Bucket=BUCKET)

    def before(operation: str, _: Mapping[str, Any]) -> None:
        if operation == "CreateBucket":
            raise client_error(operation, "BucketAlreadyExists")

    intercept(monkeypatch, before)
    with pytest.raises(CloudError, match=f"{BUCKET} belongs to another account"):
        upload(fill(tmp_path / "pets"))


def test_a_delete_that_is_refused_is_said(aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    (root / "train" / "001.cat" / "0000.jpg").unlink()
    errors = {"Errors": [{"Key": "k", "Code": "AccessDenied", "Message": "denied"}]}
    real = sending.send
    monkeypatch.setattr(
        sending, "send", lambda aws, request: errors if request.operation == "DeleteObjects" else real(aws, request)
    )
    with pytest.raises(CloudError, match=r"s3://\S+/k could not be deleted: denied \(AccessDenied\)"):
        upload(root)


def test_one_file_is_sent_once(aws: boto3.Session, tmp_path: Path, calls: list[str]) -> None:
    weights, uri = tmp_path / "resnet50.pth", PREFIX / "weights" / "resnet50.pth"
    weights.write_bytes(b"weights")
    settings = Settings(output_kms_key=KEY)
    assert storage.upload_file(account(), weights, uri, settings)
    assert not storage.upload_file(account(), weights, uri, settings)
    assert calls.count("s3:PutObject") == 1
    weights.write_bytes(b"WEIGHTS")
    assert storage.upload_file(account(), weights, uri, settings)
    answer = aws.client("s3").get_object(Bucket=BUCKET, Key=uri.key)
    assert (answer["Body"].read(), answer["SSEKMSKeyId"]) == (b"WEIGHTS", KEY)
    with pytest.raises(DataError, match=r"gone.pth is not there"):
        storage.upload_file(account(), tmp_path / "gone.pth", uri, settings)


def test_a_large_file_is_sent_in_parts_and_not_left_half(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    """One request takes 5 GB; parts are sent from 8 MB on."""
    weights, uri = tmp_path / "vit.pth", PREFIX / "weights" / "vit.pth"
    weights.write_bytes(bytes(range(256)) * 40_000)
    happening: list[Callable[[], None]] = [lambda: os.utime(weights)]

    def before(operation: str, _: Mapping[str, Any]) -> None:
        if operation == "UploadPart" and happening:
            happening.pop()()

    def denied() -> None:
        raise client_error("UploadPart", "AccessDenied", "not authorized")

    with monkeypatch.context() as patch:
        intercept(patch, before)
        with pytest.raises(CloudError, match=r"vit.pth was changed while it was being sent"):
            storage.upload_file(account(), weights, uri, Settings())
        happening.append(denied)
        with pytest.raises(Boto3Error, match="not authorized"):
            storage.upload_file(account(), weights, uri, Settings())
        assert "s3:AbortMultipartUpload" in calls
        assert stored(aws, BUCKET, f"{PREFIX.key}/weights/") == {}
        assert storage.upload_file(account(), weights, uri, Settings())
    assert aws.client("s3").get_object(Bucket=BUCKET, Key=uri.key)["Body"].read() == weights.read_bytes()
    assert not storage.upload_file(account(), weights, uri, Settings())


def test_what_is_missing_to_train_on_is_named(
    aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(aws, f"{PREFIX.key}/train/", b"")
    with pytest.raises(
        CloudError, match=r"no images below train/ and valid/ and test/: upload them with scripts/prepare"
    ):
        storage.require_data(account(), PREFIX)
    put(aws, f"{PREFIX.key}/train/a/1.jpg")
    put(aws, f"{PREFIX.key}/test/a/1.jpg")
    with pytest.raises(CloudError, match="no images below valid/:"):
        storage.require_data(account(), PREFIX)
    put(aws, f"{PREFIX.key}/validation/a/1.jpg")
    with pytest.raises(CloudError, match=r"rename validation/ to valid/ \(`aws s3 mv --recursive`\)"):
        storage.require_data(account(), PREFIX)
    put(aws, f"{PREFIX.key}/valid/a/1.jpg")
    put(aws, f"{PREFIX.key}/manifest.json", b"somebody else's")
    storage.require_data(account(), PREFIX)

    other = S3Uri(BUCKET, "byoc/data/other")
    root = fill(tmp_path / "other", 4)
    with monkeypatch.context() as patch:
        fail_puts_after(patch, 23, EndpointConnectionError(endpoint_url="https://s3"))
        with pytest.raises(CloudError, match="cannot be reached"):
            upload(root, other)
    with pytest.raises(CloudError, match=r"the upload to .* has not ended"):
        storage.require_data(account(), other)
    upload(root, other)
    storage.require_data(account(), other)
    with pytest.raises(CloudError, match="is not there"):
        storage.require_data(account(), S3Uri("no-such-bucket", "x"))


def test_work_is_broken_off_at_the_first_error_and_threads_end() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 20:
            raise ValueError("twenty")
        return number

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="twenty"):
        each(work, range(10**9), lambda number, _: done.append(number), threads=4)
    assert len(done) < 200
    # Threads of moto's server, left from other tests, come and go beside ours.
    assert not [thread for thread in set(threading.enumerate()) - before if "go" in thread.name]
    with pytest.raises(RuntimeError, match="then"):
        each(work, range(10**9), lambda *_: (_ for _ in ()).throw(RuntimeError("then")), threads=4)
    # Threads of moto's server, left from other tests, come and go beside ours.
    assert not [thread for thread in set(threading.enumerate()) - before if "go" in thread.name]
