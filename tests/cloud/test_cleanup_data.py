"""cleanup.py --data and --repositories: objects in S3 and images in ECR, those of others beside them."""

import argparse
import json
from pathlib import Path

import boto3
from botocore import xform_name

from container_train.data import splits as data_sets
from container_train.data.labels import SPLITS
from scripts import cleanup
from scripts.aws.account import Aws
from scripts.aws.settings import load
from scripts.images.registry import repository_requests
from scripts.s3 import objects, storage
from tests.cloud.conftest import BUCKET, REGION, ROLE, Call
from tests.cloud.pictures import fill
from tests.cloud.test_cleanup import OWN, deploy, fast, job, keys, put

__all__ = ["fast"]  # a fixture


def fill_bucket(session: boto3.Session, folder: Path) -> list[str]:
    """Everything that the scripts leave there, and the keys of what others put beside it."""
    settings = load(argparse.Namespace(region=REGION, role=ROLE), {})
    aws, home = Aws(REGION), settings.home()
    root = fill(folder / "pictures", 1)
    splits = {split: data_sets.class_files(root / split).classes for split in SPLITS}
    storage.upload(aws, storage.items(splits), home / "data" / "pictures", settings)
    (folder / "resnet50.pth").write_bytes(b"weights")
    digest = objects.digest(folder / "resnet50.pth")
    storage.upload_file(aws, folder / "resnet50.pth", home / "weights" / digest[:16] / "resnet50.pth", settings)
    job(session, "job-1", OWN)
    job(session, "job-2", {})
    put(session, "byoc/job-1/output/model.tar.gz")
    put(session, "byoc/job-1/checkpoints/checkpoint.pt")
    others = [
        "byoc/data/pictures/train/extra.jpg",
        "byoc/job-2/output/model.tar.gz",
        "byoc/notes.txt",
        "byoc/weights/mine.pth",
        "byoc-2/x",
        "elsewhere/y",
    ]
    for key in others:
        put(session, key)
    return sorted(others)


def test_data(aws: boto3.Session, tmp_path: Path, call: Call) -> None:
    others = fill_bucket(aws, tmp_path)
    ended = call(cleanup)
    assert f"s3://{BUCKET}/byoc/data/pictures" in ended.out
    assert "7 objects" in ended.out  # six pictures and the manifest
    assert f"s3://{BUCKET}/byoc/notes.txt: 1 objects that these scripts cannot account for" in ended.err
    removed = call(cleanup, "--data", "--yes", "--json").json["removed"]
    assert [one["kind"] for one in removed] == ["images", "weights", "results of a job"]
    assert sorted(keys(aws)) == others
    ended = call(cleanup, "--data", "--yes")
    assert (ended.code, "nothing to remove" in ended.err) == (0, True)


def test_a_model_that_is_served_stays(aws: boto3.Session, tmp_path: Path, call: Call) -> None:
    fill_bucket(aws, tmp_path)
    deploy(aws, "byoc-dogs")
    ended = call(cleanup, "--data", "--yes")
    assert "byoc/job-1/output/model.tar.gz" in keys(aws)
    assert f"left: s3://{BUCKET}/byoc/job-1, which the model byoc-dogs uses" in ended.err
    assert call(cleanup, "--all", "--data", "--yes").code == 0
    assert "byoc/job-1/output/model.tar.gz" not in keys(aws)


def test_no_bucket_is_nothing_to_remove(aws: boto3.Session, call: Call) -> None:
    ended = call(cleanup, "--data", "--yes", "--bucket", "there-is-none")
    assert (ended.code, "nothing to remove" in ended.err) == (0, True)


# ECR


def test_repositories(aws: boto3.Session, call: Call) -> None:
    ecr = aws.client("ecr")
    settings = load(argparse.Namespace(region=REGION), {})
    for request in repository_requests("byoc-serve", settings):
        getattr(ecr, xform_name(request.operation))(**request.request)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    config = {"digest": "sha256:" + "1" * 64, "size": 1, "mediaType": "application/json"}
    ecr.put_image(
        repositoryName="byoc-serve",
        imageManifest=json.dumps({**manifest, "config": config, "layers": []}),
        imageTag="1",
    )
    ecr.create_repository(repositoryName="byoc-train")
    ecr.create_repository(repositoryName="horses")
    deploy(aws, "byoc-dogs")
    ended = call(cleanup, "--all", "--yes")
    assert (ended.code, "left: repository byoc-serve (--repositories removes it)" in ended.err) == (0, True)
    assert call(cleanup, "--repositories", "--yes").code == 0
    left = [repository["repositoryName"] for repository in ecr.describe_repositories()["repositories"]]
    assert sorted(left) == ["byoc-train", "horses"]
