"""The model registry: a version is made with its figures, approved, deployed, and removed by its group's tag."""

import importlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from container_serve import artifact
from container_serve.artifact import MODEL_JSON
from container_train.reporting.training_report import matrix_csv
from container_train.training.metrics import Confusion
from local_test import pack
from scripts import cleanup, deploy, train
from scripts.aws import requests
from scripts.aws.account import Aws
from scripts.aws.names import S3Uri
from scripts.console.command import run
from scripts.jobs import watch
from scripts.models import documents
from scripts.models.package import PENDING
from tests.cloud import models
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.platform import know_image
from tests.cloud.test_deploy import BUCKET, IMAGE, KEY, MODEL, OFFLINE, PROJECT

GROUP = "byoc-dogs"
ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{GROUP}"
QUALITY = KEY.replace("model.tar.gz", "model_quality.json")
ACCURACY = {"int8": {"valid": 0.8, "test": 0.75}, "fp32": {"valid": 0.9, "test": 0.9}}
INTERVAL = {kind: {"valid": [0.5, 0.9], "test": [0.4, 0.95]} for kind in ACCURACY}
DETAILS: dict[str, Any] = {
    "weights": "IMAGENET1K_V2",
    "warning": "a warning of the training",
    "hyperparameters": {"lr": 0.01, "epochs": 3},
    "data": {"fingerprint": "abc", "images": {"train": 40, "valid": 10, "test": 8}},
    "best_epoch": 2,
    "training": {"job": "job-1", "image": "trainer:1", "device": "cpu", "torch": "2"},
    "accuracy": ACCURACY,
    "accuracy_interval": INTERVAL,
}


def call(*arguments: str) -> int:
    return run("deploy.py", deploy.main, arguments)


def archives(folder: Path, matrix: bool = True) -> dict[str, bytes]:
    """model.tar.gz as a training leaves it, and its output."""
    model = models.folder(folder / "model")
    plain = artifact.read(model)
    (model / MODEL_JSON).unlink()
    artifact.write(
        model, classes=plain.classes, architecture="resnet50", preprocessing=plain.preprocessing, precision="int8",
        details=DETAILS,
    )  # fmt: skip
    pack.pack(model, folder / "model.tar.gz")
    found = {"model.tar.gz": (folder / "model.tar.gz").read_bytes()}
    if matrix:
        content = matrix_csv(
            Confusion.of(np.repeat([0, 0, 1], [3, 1, 4]), np.repeat([0, 1, 1], [3, 1, 4]), 2), ("cat", "dog")
        ).encode()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, data in (("metrics.json", b"{}"), ("confusion_matrix.csv", content)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        found["output.tar.gz"] = stream.getvalue()
    return found


def put(session: boto3.Session, found: dict[str, bytes]) -> None:
    for name, content in found.items():
        session.client("s3").put_object(Bucket=BUCKET, Key=KEY.replace("model.tar.gz", name), Body=content)


@pytest.fixture
def account(aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """An account with an image, and what a job has left."""
    know_image(monkeypatch, artifact.FORMAT_VERSION)
    put(aws, archives(tmp_path))
    return aws


def register(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert call("--image", IMAGE, "--model-data", MODEL, "--register", GROUP, *more) == 0
    return capsys.readouterr().out.strip()


# Requests


def test_the_requests_of_a_registration(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    assert call(*OFFLINE, "--model-data", MODEL, "--register", GROUP, "--dry-run") == 0
    group, package = json.loads(capsys.readouterr().out)
    assert group == {
        "service": "sagemaker",
        "operation": "CreateModelPackageGroup",
        "request": {"ModelPackageGroupName": GROUP, "Tags": [PROJECT]},
    }
    assert package["operation"] == "CreateModelPackage"
    request = package["request"]
    assert request["ModelApprovalStatus"] == "PendingManualApproval"
    specification = request["InferenceSpecification"]
    assert specification["Containers"] == [{"Image": IMAGE, "ModelDataUrl": MODEL}]
    assert "image/jpeg" in specification["SupportedContentTypes"]
    assert specification["SupportedResponseMIMETypes"] == ["application/json", "text/csv", "application/jsonlines"]
    assert specification["SupportedRealtimeInferenceInstanceTypes"][0] == "ml.m5.large"
    statistics = request["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert statistics == {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{QUALITY}"}
    assert calls == []


def test_the_requests_of_an_approval_and_of_a_deployment(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    place = ("--role", ROLE, "--region", REGION, "--dry-run")
    assert call("--approve", f"{GROUP}:3", *place) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["request"] == {"ModelPackageArn": f"{ARN}/3", "ModelApprovalStatus": "Approved"}
    assert call("--model-package", f"{GROUP}:3", "--name", "byoc-x", "--environment", "A=1", *place) == 0
    model = json.loads(capsys.readouterr().out)[0]["request"]
    assert model["PrimaryContainer"] == {"ModelPackageName": f"{ARN}/3", "Environment": {"A": "1"}}
    assert call("--model-package", GROUP, *place) == 0
    assert "1 stands for it here" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*OFFLINE, "--model-package", GROUP), "--model-package says which image and model: leave out --image"),
        (("--model-package", f"{GROUP}:0"), "expected GROUP or GROUP:VERSION, such as byoc-dogs:3"),
        (("--approve", "a_b"), "--approve has value 'a_b'"),
        (("--approve", GROUP, "--model-package", GROUP), "give one of them"),
        ((*OFFLINE, "--register", GROUP), "no model: give --model-data"),
        (("--register", GROUP, "--model-data", MODEL), "no image: give --image"),
        ((*OFFLINE, "--model-data", MODEL, "--register", "a:b"), "--register has value 'a:b'"),
        ((*OFFLINE, "--model-data", MODEL, "--register", GROUP, "--name", "x"), "make no endpoint: leave out --name"),
        ((*OFFLINE, "--model-data", MODEL, "--register", GROUP, "--serverless", "2048"), "and the flags of modes"),
        (("--local", "--model-package", GROUP), "--local knows no model registry"),
        (
            ("--model-package", GROUP, "--multi-model", "s3://bucket/models"),
            "--multi-model cannot be combined with --model-package",
        ),
    ],
)
def test_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], calls: list[str], arguments: tuple[str, ...], words: str
) -> None:
    assert call(*arguments, "--role", ROLE, "--region", REGION) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert calls == []


# Against moto


def test_a_group_that_is_not_there(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--model-package", "--approve"):
        assert call(flag, f"{GROUP}:7") == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"{GROUP} has no version 7 in {REGION}: nothing is registered there" in last


def test_from_an_artifact_to_an_endpoint(
    account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    original = requests.send

    def send(aws: Aws, request: requests.Request) -> dict[str, Any]:
        sent.append(request)
        return original(aws, request)

    monkeypatch.setattr(requests, "send", send)
    assert register(capsys) == f"{GROUP}:1"
    assert register(capsys) == f"{GROUP}:2"
    client = account.client("sagemaker")
    (group,) = client.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert client.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"] == [PROJECT]
    made = client.describe_model_package(ModelPackageName=f"{ARN}/2")
    container = made["InferenceSpecification"]["Containers"][0]
    assert container == {"Image": IMAGE, "ImageDigest": "sha256:" + "0" * 64, "ModelDataUrl": MODEL}
    # moto keeps no card.
    card = next(one.request["ModelCard"] for one in sent if one.operation == "CreateModelPackage")
    assert card["ModelCardStatus"] == "Draft"
    custom = json.loads(card["ModelCardContent"])["additional_information"]["custom_details"]
    assert (custom["training job"], custom["data fingerprint"], custom["serving image"]) == ("job-1", "abc", IMAGE)
    figures = json.loads(account.client("s3").get_object(Bucket=BUCKET, Key=QUALITY)["Body"].read())
    metrics = figures["multiclass_classification_metrics"]
    assert metrics["accuracy"] == {"value": 0.75, "standard_deviation": "NaN", "confidence_interval_95": [0.4, 0.95]}
    assert metrics["valid_accuracy"]["value"] == 0.8
    assert metrics["confusion_matrix"] == {"cat": {"cat": 3, "dog": 1}, "dog": {"cat": 0, "dog": 4}}

    # Nobody has approved one yet.
    assert call("--model-package", GROUP, "--name", "byoc-x") == 1
    has = f"it has 1 {PENDING}, 2 {PENDING}; scripts/deploy.py --approve {GROUP}:N approves one"
    assert f"{GROUP} has no version that is Approved in {REGION}: {has}" in capsys.readouterr().err.splitlines()[-1]
    assert call("--model-package", f"{GROUP}:2", "--name", "byoc-x") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{GROUP}:2 is PendingManualApproval: approve it with scripts/deploy.py --approve {GROUP}:2" in last
    assert client.list_models()["Models"] == []

    assert call("--approve", f"{GROUP}:1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"model_package": f"{ARN}/1", "group": GROUP, "version": 1, "approval": "Approved"}
    assert call("--model-package", GROUP, "--name", "byoc-x") == 0
    assert "the image can serve it" in capsys.readouterr().err
    container = client.describe_model(ModelName="byoc-x")["PrimaryContainer"]
    assert container == {"ModelPackageName": f"{ARN}/1"}

    # The newest approved one, at the same endpoint; then a certain one.
    assert call("--approve", GROUP) == 0
    assert capsys.readouterr().out == f"{GROUP}:2\n"
    for wanted, version in ((GROUP, 2), (f"{GROUP}:1", 1)):
        assert call("--model-package", wanted, "--name", "byoc-x", "--update") == 0
        capsys.readouterr()
        config = client.describe_endpoint(EndpointName="byoc-x")["EndpointConfigName"]
        assert client.describe_model(ModelName=config)["PrimaryContainer"] == {"ModelPackageName": f"{ARN}/{version}"}
    assert call("--approve", GROUP) == 1
    assert f"{GROUP} has no version that is PendingManualApproval" in capsys.readouterr().err


def test_what_cannot_be_served_is_not_registered(
    account: boto3.Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path / "damaged", "flipped"))
    assert call("--image", IMAGE, "--model-data", MODEL, "--register", GROUP) == 1
    assert "corrupt" in capsys.readouterr().err.splitlines()[-1]
    assert not [one for one in calls if "ModelPackage" in one or one == "s3:PutObject"]


def test_a_version_that_the_service_refuses(
    account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "ModelPackageArn": f"{ARN}/1", "ModelPackageGroupName": GROUP, "ModelPackageVersion": 1,
        "ModelPackageStatus": "Failed", "CreationTime": 0,
        "InferenceSpecification": {"Containers": [{"Image": IMAGE, "ModelDataUrl": MODEL}]},
        "ModelPackageStatusDetails": {
            "ValidationStatuses": [{"Name": "x", "Status": "Failed", "FailureReason": "no such image"}]
        },
    }  # fmt: skip
    give(monkeypatch, "DescribeModelPackage", answer)
    assert call("--image", IMAGE, "--model-data", MODEL, "--register", GROUP) == 1
    assert f"the model package {GROUP}:1 is Failed: no such image" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("change", ["missing", "damaged", "without"])
def test_without_a_confusion_matrix(
    aws: boto3.Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    put(aws, archives(tmp_path, matrix=False))
    if change == "damaged":
        put(aws, {"output.tar.gz": b"no archive"})
    if change == "without":
        stream = io.BytesIO()
        tarfile.open(fileobj=stream, mode="w:gz").close()
        put(aws, {"output.tar.gz": stream.getvalue()})
    assert documents.confusion(Aws(REGION), S3Uri.parse(MODEL, "-")) is None
    assert "no confusion matrix is registered: s3://" in capsys.readouterr().err


def test_the_card_is_one_by_the_sdk() -> None:
    importlib.import_module("scripts.jobs.sdk")  # keeps the SDK quiet
    from sagemaker.model_card import model_card as sdk

    model = {**DETAILS, "architecture": "resnet50", "precision": "int8", "classes": ["cat", "dog"]}
    card = json.loads(documents.card(model, S3Uri.parse(MODEL, "-"), IMAGE))
    details = sdk.TrainingDetails._from_dict(dict(card["training_details"]))
    assert {one.name: one.value for one in details.training_job_details.hyper_parameters} == {
        "lr": "0.01",
        "epochs": "3",
    }
    assert details.training_job_details.training_environment.container_image == ["trainer:1"]
    assert details.training_observations == "a warning of the training"
    (evaluation,) = [sdk.EvaluationJob._from_dict(dict(one)) for one in card["evaluation_details"]]
    values = {one.name: (one.value, one.notes) for one in evaluation.metric_groups[0].metric_data}
    assert values["accuracy on test"] == (0.75, "8 images; 95 % interval 0.4000 to 0.9500")
    custom = sdk.AdditionalInformation._from_dict(dict(card["additional_information"])).custom_details
    assert (custom["architecture"], custom["classes"], custom["images of train"]) == ("resnet50", "2", "40")
    assert len(documents.card({}, S3Uri.parse(MODEL, "-"), IMAGE)) > 0  # of an artifact of others


# train.py

TRAIN_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-train:0.1.0-abc"
TRAIN = ("--image", TRAIN_IMAGE, "--data", "s3://my-data/dogs", "--name", "job-1", "--role", ROLE, "--region", REGION)
REGISTERED = ("--register", GROUP, "--serving-image", IMAGE)


def train_call(*arguments: str) -> int:
    return run("train.py", train.main, arguments)


def test_the_requests_of_a_job_that_is_registered(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    assert train_call(*TRAIN, *REGISTERED, "--dry-run") == 0
    shown = json.loads(capsys.readouterr().out)
    operations = [one["operation"] for one in shown]
    assert operations == ["CreateTrainingJob", "CreateModelPackageGroup", "CreateModelPackage"]
    assert shown[2]["request"]["InferenceSpecification"]["Containers"] == [{"Image": IMAGE, "ModelDataUrl": MODEL}]
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*TRAIN, "--register", GROUP), "--register and --serving-image: give both"),
        ((*TRAIN, *REGISTERED, "--no-wait"), "cannot be combined with --stop or --no-wait"),
        (("--stop", "job-1", *REGISTERED, "--region", REGION), "cannot be combined with --stop or --no-wait"),
        ((*TRAIN, "--register", GROUP, "--serving-image", "byoc-serve:1"), "--serving-image"),
        ((*TRAIN, "--register", "a_b", "--serving-image", IMAGE), "--register has value 'a_b'"),
    ],
)
def test_a_registration_that_is_refused(
    capsys: pytest.CaptureFixture[str], calls: list[str], arguments: tuple[str, ...], words: str
) -> None:
    assert train_call(*arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert calls == []


@pytest.mark.parametrize("attach", [False, True])
def test_a_job_ends_in_the_registry(
    account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, attach: bool
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    for split in ("train", "valid", "test"):
        account.client("s3").put_object(Bucket=BUCKET, Key=f"byoc/data/x/{split}/cat/1.jpg", Body=b"1")
    job: tuple[str, ...] = ("--image", TRAIN_IMAGE, "--data", f"s3://{BUCKET}/byoc/data/x", "--name", "job-1")
    if attach:
        assert train_call(*job, "--no-wait") == 0
        job = ("--attach", "job-1")
    assert train_call(*job, *REGISTERED) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == MODEL
    assert f"registered {GROUP}:1, which waits for approval: scripts/deploy.py --approve {GROUP}:1" in captured.err
    (made,) = account.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    assert (made["ModelPackageArn"], made["ModelApprovalStatus"]) == (f"{ARN}/1", "PendingManualApproval")


def test_a_registration_that_fails_can_be_made_later(
    account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "valid", "test"):
        account.client("s3").put_object(Bucket=BUCKET, Key=f"byoc/data/x/{split}/cat/1.jpg", Body=b"1")
    data = ("--data", f"s3://{BUCKET}/byoc/data/x")
    assert train_call("--image", TRAIN_IMAGE, *data, "--name", "job-1", "--no-wait") == 0
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    give(monkeypatch, "CreateModelPackage", error("AccessDeniedException", "not authorized"))
    assert train_call("--attach", "job-1", *REGISTERED) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"is not registered: scripts/deploy.py --image {IMAGE} --job job-1 --register {GROUP} does it" in last
    give(monkeypatch, "CreateModelPackage", PASS)
    assert call("--image", IMAGE, "--job", "job-1", "--register", GROUP) == 0
    assert capsys.readouterr().out == f"{GROUP}:1\n"


@pytest.mark.usefixtures("image")
def test_a_serving_image_that_is_missing_costs_no_job(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    assert train_call(*TRAIN, *REGISTERED) == 1
    assert f"the image {IMAGE} is not in ECR" in capsys.readouterr().err.splitlines()[-1]
    assert "sagemaker:CreateTrainingJob" not in calls


# Cleanup


def clean(*arguments: str) -> int:
    return run("cleanup.py", cleanup.main, arguments)


def groups(session: boto3.Session) -> list[str]:
    found = session.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
    return sorted(one["ModelPackageGroupName"] for one in found)


def test_cleanup_removes_versions_and_their_group(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    register(capsys)
    register(capsys)
    account.client("sagemaker").create_model_package_group(ModelPackageGroupName="byoc-by-hand")
    assert clean("--json") == 0
    found = json.loads(capsys.readouterr().out)["found"]
    kinds = [(one["kind"], one["name"], one["status"]) for one in found if one["kind"].startswith("model package")]
    assert sorted(kinds) == [
        ("model package", f"{ARN}/1", "PendingManualApproval"),
        ("model package", f"{ARN}/2", "PendingManualApproval"),
        ("model package group", GROUP, "Completed"),
    ]
    assert clean("--packages", "--yes") == 0
    err = capsys.readouterr().err
    assert err.index(f"deleted model package {ARN}/2") < err.index(f"deleted model package group {GROUP}")
    assert groups(account) == ["byoc-by-hand"]
    assert account.client("sagemaker").list_model_packages(ModelPackageType="Both")["ModelPackageSummaryList"] == []


def test_a_version_that_a_model_uses_stays(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    register(capsys)
    register(capsys)
    assert call("--approve", f"{GROUP}:1") == 0
    assert call("--model-package", GROUP, "--name", "byoc-x") == 0
    capsys.readouterr()
    assert clean("--packages", "--yes") == 0
    err = capsys.readouterr().err
    assert f"left: model package {ARN}/1, which the model byoc-x uses" in err
    assert f"left: model package group {GROUP}, which the model package {ARN}/1 uses" in err
    assert groups(account) == [GROUP]
    assert clean("--all", "--packages", "--yes") == 0
    assert groups(account) == []


def test_a_registry_that_cannot_be_seen_is_said(
    account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "ListModelPackageGroups", error("AccessDeniedException", "not authorized"))
    assert clean() == 1
    assert "model packages cannot be seen" in capsys.readouterr().err
