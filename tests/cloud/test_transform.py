"""transform.py: its requests, whole jobs with a real server in the service's place, and the same on this machine."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3 import Session

from local_test import pack
from scripts import cleanup, transform
from scripts.batch import transform_input, transform_table
from tests.cloud.answers import ctrl_c, error, give
from tests.cloud.conftest import BUCKET, HERE, KEY, MODEL, PROJECT, REGION, ROLE, SERVE_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.platform import Platform
from tests.cloud.resources import keys, put_model
from tests.conftest import Patch, need
from tests.contract.models import picture, write_model
from tests.contract.serving import serving
from tests.docker import engine

STORED = f"s3://{BUCKET}/photos"
NAMED = ("--image", SERVE_IMAGE, "--model-data", MODEL, "--name", "byoc-batch", "--data")
OUT = f"s3://{BUCKET}/byoc/byoc-batch"
COLOURS = {"a.jpg": "red", "deep/b.png": "green", "deep/er/c d.jpg": "blue"}


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
    aws: Session, flaky: FlakyAws, labels: dict[str, str], photos: Path, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Session]:  # fmt: skip
    """An account with an image, a model and photos; its jobs are done by a real server."""
    model = put_model(aws, tmp_path)
    for path in (path for path in photos.rglob("*") if path.is_file()):
        aws.client("s3").upload_file(str(path), BUCKET, f"photos/{path.relative_to(photos)}")
    batch = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}
    with serving(model, tmp_path / "run", batch, kind=getattr(request, "param", "process")) as server:
        flaky.after["CreateTransformJob"] = Platform(aws, server).transform
        yield aws


@pytest.fixture
def unfinished(account: Session, flaky: FlakyAws) -> Session:
    """Jobs in this account go on until they are stopped."""
    flaky.slow(1000)
    flaky.after.clear()
    return account


def rows(session: Session) -> list[dict[str, str]]:
    key = "byoc/byoc-batch/predictions.csv"
    body = session.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    return list(csv.DictReader(body.splitlines()))


# Requests


def test_golden_requests(call: Call) -> None:
    keys = ("--volume-kms-key", "1234abcd", "--output-kms-key", "abcd")
    manifest, model, job = call(transform, *NAMED, STORED, *HERE, *keys, "--instance-count", 2, "--dry-run").json
    assert manifest["request"]["Key"] == "byoc/byoc-batch/images.manifest"
    assert model["request"] == {
        "ModelName": "byoc-batch",
        "PrimaryContainer": {"Image": SERVE_IMAGE, "ModelDataUrl": MODEL},
        "ExecutionRoleArn": ROLE,
        "EnableNetworkIsolation": False,
        "Tags": [PROJECT],
    }
    images = {"S3DataType": "ManifestFile", "S3Uri": f"{OUT}/images.manifest"}
    assert (job["service"], job["operation"]) == ("sagemaker", "CreateTransformJob")
    assert job["request"] == {
        "TransformJobName": "byoc-batch",
        "ModelName": "byoc-batch",
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": images}, "ContentType": "application/x-image", "SplitType": "None",
        },
        "TransformOutput": {"S3OutputPath": f"{OUT}/answers", "Accept": "application/json", "KmsKeyId": "abcd"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeKmsKeyId": "1234abcd"},
        "Environment": {"BYOC_BATCH_IMAGES": f"{STORED}/"},
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 1},
        "Tags": [PROJECT],
    }  # fmt: skip


def test_a_large_image_makes_the_requests_larger(photos: Path, call: Call) -> None:
    with (photos / "large.jpg").open("wb") as file:
        file.truncate(40 * 2**20)
    shown = call(transform, *NAMED, photos, *HERE, "--instance-type", "ml.c5.2xlarge", "--dry-run").json
    *uploads, _, _, job = (one["request"] for one in shown)
    assert {one["Key"] for one in uploads} == {
        *(f"byoc/batch/photos/images/{name}" for name in (*COLOURS, "large.jpg")),
        "byoc/batch/photos/manifest.json",
    }
    assert (job["MaxPayloadInMB"], job["MaxConcurrentTransforms"]) == (40, 2)
    arm = call(transform, *NAMED, photos, *HERE, "--instance-type", "ml.c7g.large", "--dry-run")
    arm.ends(2, "has ARM processors, which only endpoints have")


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
def test_a_prefix_from_the_call_to_the_table(account: Session, call: Call) -> None:
    ended = call(transform, *NAMED, STORED, "--top-k", 2)
    assert ended.code == 0, ended.err
    ended.says(
        "3 images, ",
        "1 x ml.m5.large: 0.12 USD an hour on demand",
        "notes.txt",
        "byoc-batch: Completed",
        f"3 of 3 images; all rows: {OUT}/predictions.csv",
    )
    assert ended.err.index("USD an hour") < ended.err.index("byoc-batch: Completed")
    table = rows(account)
    assert {row["file"]: row["label"] for row in table[::2]} == COLOURS
    assert len(table) == 6
    assert all(0 < float(row["probability"]) < 1 and not row["error"] for row in table)
    assert ended.out.splitlines()[0].split() == ["file", "label", "probability"]
    assert account.client("sagemaker").list_models()["Models"] == []
    # A second job there would mix its answers with these.
    call(transform, *NAMED, STORED).ends(1, f"--out {OUT} is not empty")
    assert call(transform, "--attach", "byoc-batch", "--json").json["failed"] == {}


def test_a_folder_is_uploaded_and_cleanup_knows_what_is_left(account: Session, photos: Path, call: Call) -> None:
    result = call(transform, *NAMED, photos, "--json").json
    assert (result["status"], result["images"], result["failed"]) == ("Completed", 3, {})
    assert {row["file"]: row["label"] for row in rows(account)} == COLOURS
    account.client("s3").delete_object(Bucket=BUCKET, Key=KEY)  # of a job that this account does not have
    listed = call(cleanup)
    assert OUT in listed.out
    assert f"s3://{BUCKET}/byoc/batch/photos" in listed.out
    assert "cannot account for" not in listed.err
    assert call(cleanup, "--data", "--yes").code == 0
    assert keys(account, "byoc/") == []


def test_what_fails_is_named_and_the_rest_is_there(account: Session, photos: Path, call: Call) -> None:
    (photos / "deep" / "broken.jpg").write_bytes(picture("red")[:100])
    ended = call(transform, *NAMED, photos)
    assert (ended.code, ended.last) == (1, "transform.py: 1 of 4 predictions failed")
    assert "the transform job is Failed: ClientError" in ended.err
    assert "  deep/broken.jpg: 400 " in ended.err  # the end of its log
    assert "no prediction for deep/broken.jpg: no answer" in ended.err
    table = {row["file"]: (row["label"], row["error"]) for row in rows(account)}
    assert table == {**{name: (label, "") for name, label in COLOURS.items()}, "deep/broken.jpg": ("", "no answer")}


def test_a_job_in_progress_is_listed_stopped_and_followed(
    unfinished: Session, flaky: FlakyAws, photos: Path, call: Call
) -> None:
    ended = call(transform, *NAMED, photos, "--no-wait")
    assert (ended.code, ended.out) == (0, "byoc-batch\n")
    assert f"scripts/transform.py --attach byoc-batch --region {REGION}" in ended.err
    listed = call(cleanup).out
    assert "transform job" in listed
    assert "1 x ml.m5.large" in listed
    # Its images stay as long as it runs.
    left = call(cleanup, "--data", "--yes").err
    assert f"left: s3://{BUCKET}/byoc/batch/photos, which the transform job byoc-batch uses" in left
    flaky.slow(0)
    call(transform, "--stop", "byoc-batch", "--project", "birds").ends(1, "these scripts did not make it")
    call(cleanup, "--jobs", "--yes").says("stopping transform job byoc-batch")
    call(transform, "--attach", "byoc-batch").says("the transform job is Stopped", code=1)
    ended = call(transform, "--stop", "byoc-batch")
    assert (ended.code, ended.last) == (0, "byoc-batch has ended already: Stopped")


def test_a_job_that_is_refused_leaves_no_model(account: Session, monkeypatch: Patch, call: Call) -> None:
    give(monkeypatch, "CreateTransformJob", error("ResourceLimitExceeded", "The limit for 'ml.m5.large' is 0"))
    call(transform, *NAMED, STORED).ends(1, "Service Quotas")
    assert account.client("sagemaker").list_models()["Models"] == []


@pytest.mark.usefixtures("account")
def test_what_is_missing_is_one_line(photos: Path, monkeypatch: Patch, call: Call) -> None:
    call(transform, *NAMED, f"s3://{BUCKET}/nothing").ends(2, "no images below this prefix")
    call(transform, "--attach", "byoc-none").ends(1, f"there is no transform job byoc-none in {REGION}")
    monkeypatch.setattr(transform_input, "MAX_MIB", 0)
    call(transform, *NAMED, STORED).ends(2, f"{STORED}/a.jpg is larger than 0 MiB, which batch transform cannot send")
    call(transform, *NAMED, photos, "--dry-run").ends(2, "a.jpg is larger than 0 MiB")


@pytest.mark.usefixtures("unfinished")
def test_ctrl_c_leaves_it_running(monkeypatch: Patch, call: Call) -> None:
    monkeypatch.setattr("scripts.aws.polling.time.sleep", ctrl_c)
    ended = call(transform, *NAMED, STORED)
    ended.ends(
        130,
        "the job is still running and billed; re-attach with: scripts/transform.py --attach byoc-b",
        f"stop it with: scripts/transform.py --stop byoc-batch --region {REGION}",
    )


# On this machine


@pytest.mark.docker
def test_local(photos: Path, tmp_path: Path, call: Call) -> None:
    need(engine.available(), "a Docker engine")
    pack.pack(write_model(tmp_path / "model"), tmp_path / "model.tar.gz")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "out"
    local = ("--local", "--image", engine.image("serve"), "--model-data", tmp_path / "model.tar.gz", "--data", photos)
    ended = call(transform, *local, "--out", out, "--json")
    assert (ended.code, list(ended.json["failed"])) == (1, ["broken.jpg"])
    assert "400 " in ended.json["failed"]["broken.jpg"]
    table = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert {row["file"]: row["label"] for row in table if row["label"]} == COLOURS
    answers = {str(path.relative_to(out / "answers")) for path in (out / "answers").rglob("*.out")}
    assert answers == {f"{name}.out" for name in COLOURS}
    assert {path.stat().st_uid for path in out.rglob("*")} == {os.getuid()}
    call(transform, *local, "--out", out).ends(2, "is not empty")
