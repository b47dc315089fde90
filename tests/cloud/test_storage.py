"""Uploads: nothing is sent twice, nothing is lost by a break, nothing that is somebody else's is touched."""

import functools
import hashlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session
from boto3.exceptions import Boto3Error
from botocore.exceptions import EndpointConnectionError

from container_train.data import splits
from container_train.errors import DataError
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.console.command import Interrupted
from scripts.s3 import storage
from scripts.s3.storage import Uploaded
from tests.cloud.answers import error as error_of
from tests.cloud.answers import give
from tests.cloud.conftest import ACCOUNT, BUCKET, REGION
from tests.cloud.pictures import bodies, fill, intercept, jpeg, stored
from tests.cloud.resources import put
from tests.conftest import Patch

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


def there(session: Session) -> dict[str, bytes]:
    return stored(session, BUCKET, f"{PREFIX.key}/")


def manifest(session: Session) -> dict[str, Any]:
    answer = session.client("s3").get_object(Bucket=BUCKET, Key=f"{PREFIX.key}/manifest.json")
    content: dict[str, Any] = json.loads(answer["Body"].read())
    return content


def fail(monkeypatch: Patch, error: Exception, at: str = "", operation: str = "PutObject", after: int = 0) -> None:
    """The scripts' calls of `operation` whose key holds `at` meet `error`; the first `after` of them do not."""
    called: list[str] = []

    def before(name: str, request: Mapping[str, Any]) -> None:
        if name == operation and at in str(request.get("Key")):
            called.append(name)
            if len(called) > after:
                raise error

    intercept(monkeypatch, before)


def test_all_arrives_and_a_second_call_sends_nothing(aws: Session, tmp_path: Path, calls: list[str]) -> None:
    root = fill(tmp_path / "pets")
    (root / "train" / "001.cat" / "0000.jpg").write_bytes(b"")
    size = sum(map(len, bodies(root).values()))
    assert upload(root) == Uploaded(sent=12, kept=0, deleted=0, bytes=size)
    assert there(aws) == bodies(root)
    content = manifest(aws)
    assert content["complete"] is True
    assert {key: (entry["sha256"], entry["bytes"]) for key, entry in content["files"].items()} == {
        key: (hashlib.sha256(body).hexdigest(), len(body)) for key, body in bodies(root).items()
    }
    head = aws.client("s3").head_object(Bucket=BUCKET, Key=f"{PREFIX.key}/train/001.cat/0000.jpg")
    assert head["ETag"].strip('"') == content["files"]["train/001.cat/0000.jpg"]["etag"]
    calls.clear()
    assert upload(root) == Uploaded(sent=0, kept=12, deleted=0, bytes=0)
    assert Counter(calls) == Counter(["s3:HeadBucket", "s3:GetObject", "s3:ListObjectsV2"])


def test_only_what_changed_is_sent_and_what_is_gone_is_deleted(aws: Session, tmp_path: Path, calls: list[str]) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    (root / "train" / "001.cat" / "0000.jpg").write_bytes(jpeg(900))
    (root / "train" / "001.cat" / "new.jpg").write_bytes(jpeg(901))
    (root / "test" / "002.dog" / "0001.jpg").unlink()
    calls.clear()
    result = upload(root)
    assert (result.sent, result.kept, result.deleted) == (2, 10, 1)
    assert Counter(calls)["s3:PutObject"] == 2 + 2, "two pictures, and the manifest twice"
    assert there(aws) == bodies(root)
    assert set(manifest(aws)["files"]) == set(bodies(root))


@pytest.mark.parametrize("damage", ["overwritten", "of the same size", "deleted"])
def test_what_somebody_did_to_an_object_is_put_right(aws: Session, tmp_path: Path, damage: str) -> None:
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


def test_names_that_urls_would_change_come_back_as_they_were(aws: Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    folder = root / "train" / "001.cat"
    names = ("a b", "a+b", "a%20b", "%41", "Kätzchen", "猫", "a&b=c?d#e", "a'b\"c\\d", "a..b", "~")
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(jpeg(500 + number))
    odd = S3Uri(BUCKET, "byoc/data/a b+c%20ü")
    assert upload(root, odd).sent == 22
    assert stored(aws, BUCKET, f"{odd.key}/") == bodies(root)
    assert upload(root, odd).sent == 0


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
def test_another_programs_manifest_is_not_overwritten(aws: Session, tmp_path: Path, body: bytes) -> None:
    root = fill(tmp_path / "pets")
    put(aws, f"{PREFIX.key}/manifest.json", body)
    with pytest.raises(CloudError, match=r"manifest.json is no manifest that this program can read"):
        upload(root)
    assert there(aws) == {}


def test_a_key_of_ones_own_encrypts_all_and_a_new_one_sends_all_again(aws: Session, tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    assert upload(root).sent == 12
    assert upload(root, output_kms_key=KEY).sent == 12
    s3 = aws.client("s3")
    for key in (*bodies(root), "manifest.json"):
        head = s3.head_object(Bucket=BUCKET, Key=f"{PREFIX.key}/{key}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert upload(root, output_kms_key=KEY).sent == 0


@pytest.mark.parametrize("bucket", [BUCKET, "my-bucket"])
def test_dry_run_shows_what_is_sent(aws: Session, tmp_path: Path, monkeypatch: Patch, bucket: str) -> None:
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
    assert {key: {k: str(v) for k, v in request.items()} for key, request in sent.items()} == {
        key: {k: str(v) for k, v in request.items()} for key, request in shown.items()
    }
    assert {request.get("ExpectedBucketOwner") for request in sent.values()} == {ACCOUNT if bucket == BUCKET else None}


def test_one_file_is_sent_once(aws: Session, tmp_path: Path, calls: list[str]) -> None:
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb.jpg", "control character"),
        (b"\xff\xfe.jpg".decode("utf-8", "surrogateescape"), "not UTF-8"),
        ("ü" * 120 + ".jpg", "bytes, S3 takes 1024"),
        ("../b.jpg", "lost on the way"),
    ],
)
def test_names_that_s3_cannot_hold_are_refused_before_anything_is_sent(tmp_path: Path, name: str, message: str) -> None:
    root = fill(tmp_path / "pets")
    prefix = S3Uri(BUCKET, "p/" + "x" * 800)
    if name.startswith(".."):
        prefix = S3Uri(BUCKET, "a/../b")
    else:
        (root / "train" / "001.cat" / name).write_bytes(jpeg(1))
    with pytest.raises(DataError, match=message) as caught:
        upload(root, prefix)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        storage.requests(items(root), prefix, Settings())


def test_objects_of_others_are_left_alone(aws: Session, tmp_path: Path, calls: list[str]) -> None:
    """Neighbours, and the empty objects by which consoles show folders, do not count."""
    root = fill(tmp_path / "pets")
    for key in ("/", "/train/", "/train/001.cat/"):
        put(aws, f"{PREFIX.key}{key}", b"")
    put(aws, f"{PREFIX.key}2/theirs.jpg")
    assert upload(root).sent == 12
    assert stored(aws, BUCKET, f"{PREFIX.key}2/") == {"theirs.jpg": b"12345"}
    other = S3Uri(BUCKET, "byoc/other")
    put(aws, f"{other.key}/train/001.cat/0000.jpg")
    put(aws, f"{other.key}/notes.txt")
    calls.clear()
    with pytest.raises(CloudError, match=r"2 objects below .*, such as .*notes.txt: give another"):
        upload(root, other)
    assert "s3:PutObject" not in calls


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EndpointConnectionError(endpoint_url="https://s3"), "cannot be reached"),
        (error_of("AccessDenied", "not authorized"), "not authorized .* a permission is missing"),
    ],
)
def test_a_break_costs_only_what_was_on_the_wire(
    aws: Session, tmp_path: Path, monkeypatch: Patch, calls: list[str], error: Exception, said: str
) -> None:
    root = fill(tmp_path / "pets", 4)
    with monkeypatch.context() as patch:
        fail(patch, error, ".jpg", after=20)
        again = rf"{said}.*20 of 24 files are in s3://.*call the same again"
        with pytest.raises(CloudError, match=again) as caught:  # in one thread: all that was sent has arrived
            storage.upload(account(), items(root), PREFIX, Settings(region=REGION), threads=1)
    assert "\n" not in str(caught.value)
    assert len(there(aws)) == 20
    content = manifest(aws)
    assert (content["complete"], set(content["files"])) == (False, set(bodies(root)))
    with pytest.raises(CloudError, match=r"the upload to .* has not ended"):
        storage.require_data(account(), PREFIX)
    # What is known to have arrived is not asked for; a picture that goes leaves nothing behind.
    gone, *_ = there(aws)
    (root / gone).unlink()
    calls.clear()
    result = upload(root)
    assert (result.sent, result.kept, result.deleted) == (4, 19, 1)
    assert Counter(calls)["s3:PutObject"] == 4 + 2
    assert there(aws) == bodies(root)
    storage.require_data(account(), PREFIX)


def test_ctrl_c_says_what_is_there_and_how_to_go_on(aws: Session, tmp_path: Path, monkeypatch: Patch) -> None:
    root = fill(tmp_path / "pets", 4)
    puts: list[str] = []
    heard = threading.Event()

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject" and request["Key"].endswith(".jpg"):
            puts.append(request["Key"])
            if len(puts) == 9:
                os.kill(os.getpid(), signal.SIGINT)
            if len(puts) >= 9:
                heard.wait(20)
                raise EndpointConnectionError(endpoint_url="https://s3")  # so that nothing is sent later

    with monkeypatch.context() as patch:
        intercept(patch, before)
        with pytest.raises(Interrupted, match=r"interrupted: \d+ of 24 files are in s3://\S+; call the same again"):
            upload(root)
        heard.set()
    result = upload(root)
    assert 0 < result.kept == 24 - result.sent < 24
    assert there(aws) == bodies(root)


def test_what_changes_under_way_is_found(aws: Session, tmp_path: Path, monkeypatch: Patch) -> None:
    root = fill(tmp_path / "pets")

    def before(operation: str, request: Mapping[str, Any]) -> None:
        if operation == "PutObject" and request["Key"].endswith("test/002.dog/0001.jpg"):
            put(aws, f"{PREFIX.key}/train/001.cat/theirs.jpg")

    with monkeypatch.context() as patch:
        fail(patch, error_of("BadDigest", "The SHA256 did not match"), "valid/001.cat/0000.jpg")
        with pytest.raises(CloudError, match=r"valid/001.cat/0000.jpg was changed while it was being sent"):
            upload(root)
    with monkeypatch.context() as patch:
        intercept(patch, before)
        (root / "test/002.dog/0001.jpg").write_bytes(jpeg(99))
        with pytest.raises(CloudError, match="changed by another program during the upload"):
            upload(root)
    assert manifest(aws)["complete"] is False


def test_a_delete_that_is_refused_is_said(aws: Session, tmp_path: Path, monkeypatch: Patch) -> None:
    root = fill(tmp_path / "pets")
    upload(root)
    (root / "train" / "001.cat" / "0000.jpg").unlink()
    give(monkeypatch, "DeleteObjects", {"Errors": [{"Key": "k", "Code": "AccessDenied", "Message": "denied"}]})
    with pytest.raises(CloudError, match=r"s3://\S+/k could not be deleted: denied \(AccessDenied\)"):
        storage.upload(Aws(REGION), items(root), PREFIX, Settings(region=REGION))


def test_a_large_file_is_sent_in_parts_and_not_left_half(
    aws: Session, tmp_path: Path, monkeypatch: Patch, calls: list[str]
) -> None:
    """One request takes 5 GB; parts are sent from 8 MB on."""
    weights, uri = tmp_path / "vit.pth", PREFIX / "weights" / "vit.pth"
    weights.write_bytes(bytes(range(256)) * 40_000)
    with monkeypatch.context() as patch:
        intercept(patch, lambda operation, _: os.utime(weights) if operation == "UploadPart" else None)
        with pytest.raises(CloudError, match=r"vit.pth was changed while it was being sent"):
            storage.upload_file(account(), weights, uri, Settings())
    with monkeypatch.context() as patch:
        fail(patch, error_of("AccessDenied", "not authorized"), operation="UploadPart")
        with pytest.raises(Boto3Error, match="not authorized"):
            storage.upload_file(account(), weights, uri, Settings())
    assert "s3:AbortMultipartUpload" in calls
    assert stored(aws, BUCKET, f"{PREFIX.key}/weights/") == {}
    assert storage.upload_file(account(), weights, uri, Settings())
    assert aws.client("s3").get_object(Bucket=BUCKET, Key=uri.key)["Body"].read() == weights.read_bytes()
    assert not storage.upload_file(account(), weights, uri, Settings())
