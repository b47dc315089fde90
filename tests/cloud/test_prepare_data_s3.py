"""scripts/prepare_data.py --s3: what the program sends, prints and leaves, and that it survives being killed."""

import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session

from scripts import prepare_data
from scripts.dataset import source
from tests.cloud.conftest import ACCOUNT, BUCKET, HERE, REGION, ROLE, Call
from tests.cloud.pictures import CLASSES, bodies, fill, intercept, jpeg, stored
from tests.conftest import Patch

EIGHT_TENTHS = {"train": 16, "valid": 2, "test": 2}


def unsplit(root: Path) -> Path:
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(10):
            (root / name / f"{index}.jpg").write_bytes(jpeg(1000 * number + index))
    return root


def zipped(path: Path, each: int = 10) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(CLASSES):
            for index in range(each):
                archive.writestr(f"pets/{name}/{index}.jpg", jpeg(1000 * number + index))
    return path


def splits_of(keys: Any) -> Counter[str]:
    return Counter(key.partition("/")[0] for key in keys)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The program's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.mark.usefixtures("temporary")
def test_a_folder_goes_up_from_where_it_lies(aws: Session, tmp_path: Path, call: Call) -> None:
    root = fill(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    prefix = f"s3://{BUCKET}/byoc/data/pets"
    size = sum(map(len, bodies(root).values())) / 1e6
    assert call(prepare_data, root, "--s3").out == (
        f"{prefix}: 2 classes, 4 train, 4 valid, 4 test; 12 files sent ({size:.1f} MB), 0 there already, 0 deleted\n"
    )
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(root)
    assert sorted(tmp_path.rglob("*")) == before
    assert call(prepare_data, root, "--s3", prefix, "--json").json == {
        "source": str(root), "split": [0.8, 0.1, 0.1], "seed": 0, "images": {"train": 4, "valid": 4, "test": 4},
        "classes": 2, "s3": prefix, "sent": 0, "kept": 12, "deleted": 0, "bytes": 0,
    }  # fmt: skip


def test_a_zip_is_unpacked_split_and_leaves_nothing_here(
    aws: Session, tmp_path: Path, temporary: Path, call: Call
) -> None:
    archive, place = zipped(tmp_path / "pets.zip"), f"s3://{BUCKET}/byoc/zip"
    assert call(prepare_data, archive, "--s3", place).code == 0
    assert splits_of(stored(aws, BUCKET, "byoc/zip/")) == EIGHT_TENTHS
    assert list(temporary.iterdir()) == []
    assert archive.exists()
    # The same pictures from a folder, split by the same seed, are the same set.
    root = unsplit(tmp_path / "pets")
    assert call(prepare_data, root, "--s3", place, "--json").json["sent"] == 0
    assert call(prepare_data, root, "--s3", place, "--seed", "1", "--json").json["deleted"] > 0
    assert splits_of(stored(aws, BUCKET, "byoc/zip/")) == EIGHT_TENTHS


def test_both_lays_out_here_and_sends_that(aws: Session, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "out"
    arguments = (unsplit(tmp_path / "pets"), "--out", out, "--s3")
    assert len(call(prepare_data, *arguments).out.splitlines()) == 2
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(out)
    (out / "train" / CLASSES[0] / "more.jpg").write_bytes(jpeg(77))
    result = call(prepare_data, *arguments, "--json").json
    assert (result["out"], result["sent"], result["kept"]) == (str(out), 1, 20)


def test_a_download_is_kept_until_its_pictures_are_there(
    aws: Session, tmp_path: Path, temporary: Path, monkeypatch: Patch, call: Call
) -> None:
    fetched: list[Path] = []
    url = "https://example.com/pets.zip?version=2"

    def download(wanted: str, target: Path) -> None:
        assert wanted == url
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched.append(zipped(target))

    def no_network(operation: str, _: object) -> None:
        if operation == "PutObject":
            raise ConnectionResetError("gone")

    monkeypatch.setattr(source, "download", download)
    with monkeypatch.context() as patch:
        intercept(patch, no_network)
        assert call(prepare_data, url, "--s3").code == 1
    assert len(list((tmp_path / "cache").rglob("pets.zip"))) == 1
    assert call(prepare_data, url, "--s3").code == 0
    assert len(fetched) == 1
    assert splits_of(stored(aws, BUCKET, "byoc/data/pets/")) == EIGHT_TENTHS
    assert not list((tmp_path / "cache").rglob("*.zip"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_it_goes_on_where_it_was(
    aws: Session, tmp_path: Path, call: Call, calls: list[str], how: signal.Signals
) -> None:
    root = fill(tmp_path / "pets", 20)
    s3 = aws.client("s3")

    def count() -> int:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="byoc/data/pets/")
        return sum(found["Key"].endswith(".jpg") for page in pages for found in page.get("Contents", ()))

    words = [sys.executable, str(prepare_data.__file__), str(root), "--s3"]
    program = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while count() < 10 and time.monotonic() < until:
        time.sleep(0.01)
    program.send_signal(how)
    output, error = program.communicate(timeout=60)
    assert (output, program.returncode) == ("", -how if how == signal.SIGKILL else 128 + how)
    if how == signal.SIGTERM:
        assert "of 120 files are in s3://" in error.splitlines()[-1]
        assert "Traceback" not in error
    arrived = count()  # and what was on the wire
    assert 10 <= arrived < 120
    assert call(prepare_data, root, "--s3").code == 0
    assert Counter(calls)["s3:PutObject"] <= 120 - arrived + 2, "what was missing, and the manifest twice"
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(root)


@pytest.mark.usefixtures("temporary")
def test_a_dry_run_is_the_requests_and_nothing_else(tmp_path: Path, calls: list[str], call: Call) -> None:
    """No credentials, no network: the fixture of this folder sees to that."""
    root = fill(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    flags = ("--dry-run", *HERE, "--output-kms-key", "alias/zoo", "--project", "zoo")
    ended = call(prepare_data, root, "--s3", *flags)
    *pictures, manifest = ended.requests
    assert {one["Body"]: one["Key"] for one in pictures} == {
        str(root / name): f"zoo/data/pets/{name}" for name in bodies(root)
    }
    assert manifest == {
        "Bucket": BUCKET, "Key": "zoo/data/pets/manifest.json", "ExpectedBucketOwner": ACCOUNT, "Body": "manifest.json",
        "ContentType": "application/json", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/zoo",
        "BucketKeyEnabled": True,
    }  # fmt: skip
    assert len(ended.out.splitlines()) == len(pictures) + 1, "one line per request"
    assert f"s3://{BUCKET} would be created if it is missing" in ended.err
    # Only the folder is made, later.
    ended = call(prepare_data, root, "--out", tmp_path / "out", "--dry-run")
    assert (ended.json, calls) == ([], [])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_an_archive(tmp_path: Path, temporary: Path, calls: list[str], call: Call) -> None:
    """Of one that is still to be fetched no images are known."""
    archive = zipped(tmp_path / "pets.zip", 3)
    ended = call(prepare_data, archive, "--s3", "s3://my-bucket/x", "--dry-run")
    *pictures, manifest = ended.requests
    assert len(pictures) == 3 * len(CLASSES)
    assert "ExpectedBucketOwner" not in manifest
    assert "would be created" not in ended.err
    ended = call(prepare_data, "--s3", "s3://my-bucket/dogs", "--dry-run")
    assert [shown["request"]["Key"] for shown in ended.json] == ["dogs/manifest.json"]
    assert "dogImages.zip is not on this machine yet" in ended.err
    assert (list(temporary.iterdir()), calls) == ([], [])


@pytest.mark.usefixtures("aws")
def test_what_is_no_picture_is_not_sent(tmp_path: Path, calls: list[str], call: Call) -> None:
    """It may be anything that a link leads to."""
    root = fill(tmp_path / "pets", 4)
    (tmp_path / "secret").write_text("key")
    for target in (tmp_path / "secret", "nowhere.jpg"):
        (root / "train" / CLASSES[0] / "0000.jpg").unlink()
        (root / "train" / CLASSES[0] / "0000.jpg").symlink_to(target)
        ended = call(prepare_data, root, "--s3").says("1 image cannot be read; they are not sent")
        assert f"{root.name}: 2 classes, 7 train" in ended.out
    (root / "test" / CLASSES[0] / "0000.jpg").write_bytes(b"")
    calls.clear()
    assert call(prepare_data, root, "--s3").code == 1
    assert "s3:PutObject" not in calls


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "where to? give --out DIR, --s3, or both"),
        (["pets", "--s3", "pets"], 2, "--s3 has value 'pets': expected s3://BUCKET/PREFIX; a folder stands before"),
        (["pets", "--s3", "s3://A_B/x"], 2, "--s3 has value 's3://A_B/x'"),
        (["pets", "--s3", "--region", REGION], 1, "no usable AWS credentials"),
        (["pets", "--s3", "--region", REGION, "--dry-run"], 2, "no bucket: give --bucket, or a --role"),
        (["pets", "--s3", "--role", ROLE], 2, "no region: give --region"),
        (["pets", "--s3", "s3://my-bucket/x"], 2, "no region: give --region"),
        (["pets", "--s3", *HERE], 1, "no usable AWS credentials"),
        (["gone", "--s3", *HERE], 1, "gone: no such file or folder"),
    ],
)
def test_a_call_that_cannot_work_ends_in_one_line(
    tmp_path: Path, monkeypatch: Patch, call: Call, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pets")
    ended = call(prepare_data, *arguments).ends(code, message)
    assert ended.last.startswith("prepare_data.py: ")
