"""transform.py: its requests, whole jobs with a real server in the service's place, and the same on this machine."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from container_serve.artifact import FORMAT_VERSION
from local_test import pack
from scripts import cleanup, transform
from scripts.batch import transform_input, transform_job, transform_table
from scripts.console.command import run
from scripts.endpoints import lookup
from tests.cloud import platform
from tests.cloud.answers import error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.platform import Platform
from tests.conftest import need
from tests.contract.models import picture, write_model
from tests.contract.serving import serving
from tests.docker import engine

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-serve:0.1.0"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
KEY = "byoc/job-1/output/model.tar.gz"
MODEL = f"s3://{BUCKET}/{KEY}"
STORED = f"s3://{BUCKET}/photos"
OFFLINE = ("--image", IMAGE, "--role", ROLE, "--region", REGION)
PROJECT = {"Key": "byoc-project", "Value": "byoc"}
COLOURS = {"a.jpg": "red", "deep/b.png": "green", "deep/er/c d.jpg": "blue"}


def call(*arguments: object) -> int:
    return run("transform.py", transform.main, [str(argument) for argument in arguments])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform_job, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images at three depths, and a text."""
    root = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(colour, "PNG" if name.endswith("png") else "JPEG"))
    (root / "notes.txt").write_text("none")
    return root


@pytest.fixture
def account(
    aws: boto3.Session, flaky: FlakyAws, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[boto3.Session]:  # fmt: skip
    """An account with an image, a model and photos; its jobs are done by a real server."""
    kind = getattr(request, "param", "process")
    platform.know_image(monkeypatch, FORMAT_VERSION)
    s3 = aws.client("s3")
    model = write_model(tmp_path / "model")
    pack.pack(model, tmp_path / "model.tar.gz")
    s3.upload_file(str(tmp_path / "model.tar.gz"), BUCKET, KEY)
    for path in (path for path in photos.rglob("*") if path.is_file()):
        s3.upload_file(str(path), BUCKET, f"photos/{path.relative_to(photos)}")
    batch = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}
    with serving(model, tmp_path / "run", batch, kind=kind) as server:
        stand_in = Platform(aws, server)
        flaky.after["CreateTransformJob"] = stand_in.transform
        yield aws


def rows(session: boto3.Session, key: str) -> list[dict[str, str]]:
    body = session.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    return list(csv.DictReader(body.splitlines()))


# Requests


def test_golden_requests(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model-data", MODEL, "--data", STORED, "--name", "byoc-batch", "--volume-kms-key", "1234abcd")
    assert call(*OFFLINE, *flags, "--output-kms-key", "abcd", "--instance-count", 2, "--dry-run") == 0
    manifest, model, job = json.loads(capsys.readouterr().out)
    assert manifest["request"]["Key"] == "byoc/byoc-batch/images.manifest"
    assert model["request"] == {
        "ModelName": "byoc-batch",
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": MODEL},
        "ExecutionRoleArn": ROLE,
        "EnableNetworkIsolation": False,
        "Tags": [PROJECT],
    }
    assert job == {
        "service": "sagemaker",
        "operation": "CreateTransformJob",
        "request": {
            "TransformJobName": "byoc-batch",
            "ModelName": "byoc-batch",
            "BatchStrategy": "SingleRecord",
            "TransformInput": {
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "ManifestFile",
                        "S3Uri": f"s3://{BUCKET}/byoc/byoc-batch/images.manifest",
                    }
                },
                "ContentType": "application/x-image",
                "SplitType": "None",
            },
            "TransformOutput": {
                "S3OutputPath": f"s3://{BUCKET}/byoc/byoc-batch/answers",
                "Accept": "application/json",
                "KmsKeyId": "abcd",
            },
            "TransformResources": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 2,
                "VolumeKmsKeyId": "1234abcd",
            },
            "Environment": {"BYOC_BATCH_IMAGES": f"{STORED}/"},
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 1},
            "Tags": [PROJECT],
        },
    }


def test_a_large_image_makes_the_requests_larger(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (photos / "large.jpg").open("wb") as file:
        file.truncate(40 * 2**20)
    flags = ("--model-data", MODEL, "--data", photos, "--name", "byoc-batch", "--instance-type", "ml.c5.2xlarge")
    assert call(*OFFLINE, *flags, "--dry-run") == 0
    *uploads, _, _, job = json.loads(capsys.readouterr().out)
    keys = {one["request"]["Key"] for one in uploads}
    assert keys == {
        *(f"byoc/batch/photos/images/{name}" for name in (*COLOURS, "large.jpg")),
        "byoc/batch/photos/manifest.json",
    }
    assert (job["request"]["MaxPayloadInMB"], job["request"]["MaxConcurrentTransforms"]) == (40, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*OFFLINE, "--model-data", MODEL), "no images: give --data"),
        ((*OFFLINE, "--data", STORED), "no model"),
        (("--data", STORED, "--model-data", MODEL, "--region", REGION), "no image"),
        ((*OFFLINE, "--data", STORED, "--model-data", MODEL, "--job", "j"), "give one of them"),
        ((*OFFLINE, "--data", "nowhere", "--model-data", MODEL), "--data nowhere: no such folder"),
        ((*OFFLINE, "--data", STORED, "--model-data", MODEL, "--out", "x"), "--out has value 'x'"),
        ((*OFFLINE, "--data", STORED, "--model-data", MODEL, "--instance-type", "ml.c7g.large"), "ARM"),
        (("--attach", "a", "--stop", "b"), "give one of them"),
        (("--attach", "a", "--data", STORED), "for a job that exists"),
        (("--local", "--data", STORED, "--model-data", "m"), "from a folder here"),
        (("--local", "--data", ".", "--job", "j"), "no --job"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = () if {"--attach", "--local"} & set(arguments) else ("--dry-run",)
    assert call(*arguments, *dry) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err.splitlines()[-1]


# The table


def test_outputs_are_matched_however_much_of_the_path_they_keep() -> None:
    files = ["a/x.jpg", "b/x.jpg", "x.jpg", "y.jpg"]
    relative = {file: f"{file}.out" for file in files}
    assert transform_table.matched("in/put", files, list(relative.values())) == relative
    whole = {file: f"in/put/{file}.out" for file in files}
    assert transform_table.matched("in/put", files, list(whole.values())) == whole
    # Of one that may be several files' nobody knows which; the very path is no other's.
    assert transform_table.matched("in", ["a/x.jpg", "b/x.jpg"], ["x.jpg.out"]) == {}
    assert transform_table.matched("in", ["b/x.jpg", "x.jpg"], ["x.jpg.out", "manifest"]) == {"x.jpg": "x.jpg.out"}


# Jobs


@pytest.mark.parametrize("account", ["process", pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
def test_a_prefix_from_the_call_to_the_table(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--image", IMAGE, "--model-data", MODEL, "--data", STORED, "--name", "byoc-batch", "--top-k", 2)
    assert call(*arguments) == 0
    captured = capsys.readouterr()
    for expected in (
        "3 images, ",
        "1 x ml.m5.large: 0.12 USD an hour on demand",
        "notes.txt",
        "byoc-batch: Completed",
        f"3 of 3 images; all rows: s3://{BUCKET}/byoc/byoc-batch/predictions.csv",
    ):
        assert expected in captured.err
    assert captured.err.index("USD an hour") < captured.err.index("byoc-batch: Completed")
    table = rows(account, "byoc/byoc-batch/predictions.csv")
    assert {row["file"]: row["label"] for row in table[::2]} == COLOURS
    assert len(table) == 6
    assert all(0 < float(row["probability"]) < 1 and not row["error"] for row in table)
    assert captured.out.splitlines()[0].split() == ["file", "label", "probability"]
    assert account.client("sagemaker").list_models()["Models"] == []
    # A second job there would mix its answers with these.
    assert call(*arguments) == 1
    assert f"--out s3://{BUCKET}/byoc/byoc-batch is not empty" in last_line(capsys)
    assert call("--attach", "byoc-batch", "--json") == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {}


def test_a_folder_is_uploaded_and_cleanup_knows_what_is_left(
    account: boto3.Session, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--image", IMAGE, "--model-data", MODEL, "--data", photos, "--name", "byoc-batch", "--json")
    assert call(*arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["images"], result["failed"]) == ("Completed", 3, {})
    assert {row["file"]: row["label"] for row in rows(account, "byoc/byoc-batch/predictions.csv")} == COLOURS
    account.client("s3").delete_object(Bucket=BUCKET, Key=KEY)  # of a job that this account does not have
    assert run("cleanup.py", cleanup.main, []) == 0
    listed = capsys.readouterr()
    assert f"s3://{BUCKET}/byoc/byoc-batch" in listed.out
    assert f"s3://{BUCKET}/byoc/batch/photos" in listed.out
    assert "cannot account for" not in listed.err
    assert run("cleanup.py", cleanup.main, ["--data", "--yes"]) == 0
    assert "Contents" not in account.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="byoc/")


def test_what_fails_is_named_and_the_rest_is_there(
    account: boto3.Session, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "deep" / "broken.jpg").write_bytes(picture("red")[:100])
    arguments = ("--image", IMAGE, "--model-data", MODEL, "--data", photos, "--name", "byoc-batch")
    assert call(*arguments) == 1
    said = capsys.readouterr().err
    assert "the transform job is Failed: ClientError" in said
    assert "  deep/broken.jpg: 400 " in said  # the end of its log
    assert "no prediction for deep/broken.jpg: no answer" in said
    assert said.splitlines()[-1] == "transform.py: 1 of 4 predictions failed"
    table = {row["file"]: (row["label"], row["error"]) for row in rows(account, "byoc/byoc-batch/predictions.csv")}
    assert table == {**{name: (label, "") for name, label in COLOURS.items()}, "deep/broken.jpg": ("", "no answer")}


def test_a_job_in_progress_is_listed_stopped_and_followed(
    account: boto3.Session, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(1000)
    flaky.after.clear()
    arguments = ("--image", IMAGE, "--model-data", MODEL, "--data", STORED, "--name", "byoc-batch")
    assert call(*arguments, "--no-wait") == 0
    assert f"scripts/transform.py --attach byoc-batch --region {REGION}" in capsys.readouterr().err
    assert run("cleanup.py", cleanup.main, []) == 0
    listed = capsys.readouterr().out
    assert "transform job" in listed
    assert "1 x ml.m5.large" in listed
    # Its images and its model stay as long as it runs.
    s3 = account.client("s3")
    flaky.slow(0)
    assert call("--stop", "byoc-batch", "--project", "birds") == 1
    assert "these scripts did not make it" in last_line(capsys)
    assert run("cleanup.py", cleanup.main, ["--jobs", "--yes"]) == 0
    assert "stopping transform job byoc-batch" in capsys.readouterr().err
    assert call("--attach", "byoc-batch") == 1
    assert "the transform job is Stopped" in capsys.readouterr().err
    assert call("--stop", "byoc-batch") == 0
    assert "is Stopped already" in last_line(capsys)
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="photos/")["KeyCount"] == 4


def test_uploaded_images_stay_while_a_job_reads_them(
    account: boto3.Session, flaky: FlakyAws, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(1000)
    flaky.after.clear()
    arguments = ("--image", IMAGE, "--model-data", MODEL, "--data", photos, "--name", "byoc-batch", "--no-wait")
    assert call(*arguments) == 0
    assert run("cleanup.py", cleanup.main, ["--data", "--yes"]) in (0, 1)
    assert f"left: s3://{BUCKET}/byoc/batch/photos, which the transform job byoc-batch uses" in capsys.readouterr().err


def test_a_job_that_is_refused_leaves_no_model(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "CreateTransformJob", error("ResourceLimitExceeded", "The limit for 'ml.m5.large' is 0"))
    assert call("--image", IMAGE, "--model-data", MODEL, "--data", STORED) == 1
    assert "Service Quotas" in last_line(capsys)
    assert account.client("sagemaker").list_models()["Models"] == []


def test_what_is_missing_is_one_line(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--image", IMAGE, "--model-data", MODEL)
    assert call(*model, "--data", f"s3://{BUCKET}/nothing") == 2
    assert "no images below this prefix" in last_line(capsys)
    assert call("--attach", "byoc-none") == 1
    assert f"there is no transform job byoc-none in {REGION}" in last_line(capsys)
    monkeypatch.setattr(transform_input, "MAX_MIB", 0)
    assert call(*model, "--data", STORED) == 2
    assert f"{STORED}/a.jpg is larger than 0 MiB, which batch transform cannot send" in last_line(capsys)


def test_ctrl_c_leaves_it_running(
    account: boto3.Session, flaky: FlakyAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(1000)

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.aws.polling.time.sleep", ctrl_c)
    assert call("--image", IMAGE, "--model-data", MODEL, "--data", STORED, "--name", "byoc-batch") == 130
    line = last_line(capsys)
    assert f"re-attach with: scripts/transform.py --attach byoc-batch --region {REGION}" in line
    assert f"stop it with: scripts/transform.py --stop byoc-batch --region {REGION}" in line


# On this machine


@pytest.mark.docker
def test_local(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need(engine.available(), "a Docker engine")
    pack.pack(write_model(tmp_path / "model"), tmp_path / "model.tar.gz")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "out"
    arguments = ("--local", "--image", engine.image("serve"), "--model-data", tmp_path / "model.tar.gz")
    assert call(*arguments, "--data", photos, "--out", out, "--json") == 1
    captured = capsys.readouterr()
    result: dict[str, Any] = json.loads(captured.out)
    assert list(result["failed"]) == ["broken.jpg"]
    assert "400 " in result["failed"]["broken.jpg"]
    table = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert {row["file"]: row["label"] for row in table if row["label"]} == COLOURS
    assert sorted(str(path.relative_to(out / "answers")) for path in (out / "answers").rglob("*.out")) == sorted(
        f"{name}.out" for name in COLOURS
    )
    assert {path.stat().st_uid for path in out.rglob("*")} == {os.getuid()}
    assert call(*arguments, "--data", photos, "--out", out) == 2
    assert "is not empty" in last_line(capsys)
