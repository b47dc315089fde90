"""scripts/prepare_data.py --s3: what the program sends, prints and leaves, and that it survives being killed."""

import json
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest

from scripts import prepare_data
from scripts.console import command
from scripts.dataset import source
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.pictures import CLASSES, bodies, fill, intercept, jpeg, stored
from tests.conftest import Capture, Patch

ROOT = Path(__file__).resolve().parents[2]
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"


def run(*arguments: object) -> int:
    return command.run("prepare_data.py", prepare_data.main, [str(argument) for argument in arguments])


def unsplit(root: Path, each: int = 10) -> Path:
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(each):
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
    """Where the program puts what it needs for a while."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_folder_goes_up_from_where_it_lies(
    aws: boto3.Session, tmp_path: Path, temporary: Path, capsys: Capture
) -> None:
    root = fill(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    assert run(root, "--s3") == 0
    prefix = f"s3://{BUCKET}/byoc/data/pets"
    size = sum(map(len, bodies(root).values())) / 1e6
    assert capsys.readouterr().out == (
        f"{prefix}: 2 classes, 4 train, 4 valid, 4 test; 12 files sent ({size:.1f} MB), 0 there already, 0 deleted\n"
    )
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(root)
    assert sorted(tmp_path.rglob("*")) == before
    assert run(root, "--s3", prefix, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": str(root),
        "split": [0.8, 0.1, 0.1],
        "seed": 0,
        "images": {"train": 4, "valid": 4, "test": 4},
        "classes": 2,
        "s3": prefix,
        "sent": 0,
        "kept": 12,
        "deleted": 0,
        "bytes": 0,
    }


def test_a_zip_is_unpacked_split_and_leaves_nothing_here(
    aws: boto3.Session, tmp_path: Path, temporary: Path, capsys: Capture
) -> None:
    archive = zipped(tmp_path / "pets.zip")
    assert run(archive, "--s3", f"s3://{BUCKET}/byoc/zip") == 0
    there = stored(aws, BUCKET, "byoc/zip/")
    assert splits_of(there) == {"train": 16, "valid": 2, "test": 2}
    assert list(temporary.iterdir()) == []
    assert archive.exists()
    # The same pictures from a folder, split by the same seed, are the same set.
    assert run(unsplit(tmp_path / "pets"), "--s3", f"s3://{BUCKET}/byoc/zip", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sent"] == 0
    assert run(tmp_path / "pets", "--s3", f"s3://{BUCKET}/byoc/zip", "--seed", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["deleted"] > 0
    assert splits_of(stored(aws, BUCKET, "byoc/zip/")) == {"train": 16, "valid": 2, "test": 2}


def test_both_lays_out_here_and_sends_that(aws: boto3.Session, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    arguments = (unsplit(tmp_path / "pets"), "--out", out, "--s3")
    assert run(*arguments) == 0
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(out)
    assert len(capsys.readouterr().out.splitlines()) == 2
    (out / "train" / CLASSES[0] / "more.jpg").write_bytes(jpeg(77))
    assert run(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["out"], result["sent"], result["kept"]) == (str(out), 1, 20)


def test_a_download_is_kept_until_its_pictures_are_there(
    aws: boto3.Session, tmp_path: Path, temporary: Path, monkeypatch: Patch
) -> None:
    fetched: list[Path] = []

    def download(url: str, target: Path) -> None:
        assert url == "https://example.com/pets.zip?version=2"
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched.append(zipped(target))

    def no_network(operation: str, _: object) -> None:
        if operation == "PutObject":
            raise ConnectionResetError("gone")

    monkeypatch.setattr(source, "download", download)
    with monkeypatch.context() as patch:
        intercept(patch, no_network)
        assert run("https://example.com/pets.zip?version=2", "--s3") == 1
    assert len(list((tmp_path / "cache").rglob("pets.zip"))) == 1
    assert run("https://example.com/pets.zip?version=2", "--s3") == 0
    assert len(fetched) == 1
    assert splits_of(stored(aws, BUCKET, "byoc/data/pets/")) == {"train": 16, "valid": 2, "test": 2}
    assert not list((tmp_path / "cache").rglob("*.zip"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_it_goes_on_where_it_was(
    aws: boto3.Session, tmp_path: Path, calls: list[str], how: signal.Signals
) -> None:
    root = fill(tmp_path / "pets", 20)
    s3 = aws.client("s3")

    def count() -> int:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="byoc/data/pets/")
        return sum(found["Key"].endswith(".jpg") for page in pages for found in page.get("Contents", ()))

    program = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "prepare_data.py", root, "--s3"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while count() < 10 and time.monotonic() < until:
        time.sleep(0.01)
    program.send_signal(how)
    output, error = program.communicate(timeout=60)
    assert output == ""
    if how == signal.SIGKILL:
        assert program.returncode == -signal.SIGKILL
    else:
        assert program.returncode == 128 + how
        assert "of 120 files are in s3://" in error.splitlines()[-1]
        assert "Traceback" not in error
    arrived = count()  # and what was on the wire
    assert 10 <= arrived < 120
    assert run(root, "--s3") == 0
    assert Counter(calls)["s3:PutObject"] <= 120 - arrived + 2, "what was missing, and the manifest twice"
    assert stored(aws, BUCKET, "byoc/data/pets/") == bodies(root)


def test_a_dry_run_is_the_requests_and_nothing_else(
    tmp_path: Path, temporary: Path, calls: list[str], capsys: Capture
) -> None:
    """No credentials, no network: the fixture of this folder sees to that."""
    root = fill(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    flags = ("--region", REGION, "--role", ROLE, "--output-kms-key", "alias/zoo", "--project", "zoo")
    assert run(root, "--s3", "--dry-run", *flags) == 0
    printed = capsys.readouterr()
    *pictures, manifest = [one["request"] for one in json.loads(printed.out)]
    assert {one["Body"]: one["Key"] for one in pictures} == {
        str(root / name): f"zoo/data/pets/{name}" for name in bodies(root)
    }
    assert manifest == {
        "Bucket": BUCKET, "Key": "zoo/data/pets/manifest.json", "ExpectedBucketOwner": ACCOUNT, "Body": "manifest.json",
        "ContentType": "application/json", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/zoo",
        "BucketKeyEnabled": True,
    }  # fmt: skip
    assert len(printed.out.splitlines()) == len(pictures) + 1, "one line per request"
    assert f"s3://{BUCKET} would be created if it is missing" in printed.err
    assert calls == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_names_the_pictures_of_a_zip_by_their_places_in_it(
    tmp_path: Path, temporary: Path, calls: list[str], capsys: Capture
) -> None:
    archive = zipped(tmp_path / "pets.zip", 3)
    assert run(archive, "--s3", "s3://my-bucket/x", "--dry-run") == 0
    printed = capsys.readouterr()
    requests = [shown["request"] for shown in json.loads(printed.out)]
    assert len(requests) == 7
    assert {request["Body"] for request in requests[:-1]} == {
        f"{archive}/pets/{name}/{index}.jpg" for name in CLASSES for index in range(3)
    }
    assert "ExpectedBucketOwner" not in requests[0]
    assert "would be created" not in printed.err
    assert list(temporary.iterdir()) == []
    assert calls == []


def test_a_dry_run_says_what_it_cannot_know(tmp_path: Path, temporary: Path, capsys: Capture) -> None:
    assert run("--s3", "s3://my-bucket/dogs", "--dry-run") == 0
    printed = capsys.readouterr()
    assert [shown["request"]["Key"] for shown in json.loads(printed.out)] == ["dogs/manifest.json"]
    assert "dogImages.zip is not on this machine yet" in printed.err
    out = tmp_path / "out"
    assert run(unsplit(tmp_path / "pets"), "--out", out, "--dry-run") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not out.exists()


def test_what_is_no_picture_is_not_sent(aws: boto3.Session, tmp_path: Path, calls: list[str], capsys: Capture) -> None:
    """It may be anything that a link leads to."""
    root = fill(tmp_path / "pets", 4)
    (tmp_path / "secret").write_text("key")
    for target in (tmp_path / "secret", "nowhere.jpg"):
        (root / "train" / CLASSES[0] / "0000.jpg").unlink()
        (root / "train" / CLASSES[0] / "0000.jpg").symlink_to(target)
        assert run(root, "--s3") == 0
        printed = capsys.readouterr()
        assert "1 image cannot be read; they are not sent" in printed.err
        assert f"{root.name}: 2 classes, 7 train" in printed.out
    (root / "test" / CLASSES[0] / "0000.jpg").write_bytes(b"")
    calls.clear()
    assert run(root, "--s3") == 1
    assert "s3:PutObject" not in calls


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "where to? give --out DIR, --s3, or both"),
        (["--s3", "pets"], 2, "--s3 has value 'pets': expected s3://BUCKET/PREFIX; a folder stands before --s3"),
        (["--s3", "s3://A_B/x"], 2, "--s3 has value 's3://A_B/x'"),
        (["--s3", "--region", REGION], 1, "no usable AWS credentials"),
        (["--s3", "--region", REGION, "--dry-run"], 2, "no bucket: give --bucket, or a --role"),
        (["--s3", "--role", ROLE], 2, "no region: give --region"),
        (["--s3", "s3://my-bucket/x"], 2, "no region: give --region"),
        (["--s3", "--region", REGION, "--role", ROLE], 1, "no usable AWS credentials"),
        (["gone", "--s3", "--region", REGION, "--role", ROLE], 1, "gone: no such file or folder"),
    ],
)
def test_a_call_that_cannot_work_ends_in_one_line(
    tmp_path: Path, monkeypatch: Patch, capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pets")
    folder = ["pets"] if arguments[:1] == ["--s3"] and arguments[1:2] != ["pets"] else []
    assert run(*folder, *arguments) == code
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert error[-1].startswith("prepare_data.py: ")
    assert not any("Traceback" in line for line in error)
