"""The model registry: a version is made with its figures, approved, deployed, and removed by its group's tag."""

import gzip
import importlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boto3 import Session

from container_serve import artifact
from container_serve.artifact import MODEL_JSON
from container_train.reporting.training_report import matrix_csv
from container_train.training.classification import Confusion
from local_test import pack
from scripts import cleanup, deploy, train
from scripts.aws.account import Aws
from scripts.aws.names import S3Uri
from scripts.models import documents
from scripts.models.package import PENDING
from tests.cloud import models
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, BUCKET, HERE, KEY, MODEL, PROJECT, REGION, SERVE_IMAGE, TRAIN_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import put, put_data
from tests.conftest import Capture, Patch

GROUP = "byoc-dogs"
REGISTER = ("--image", SERVE_IMAGE, "--model-data", MODEL, "--register", GROUP)
REGISTERED = ("--register", GROUP, "--serving-image", SERVE_IMAGE)
TRAIN = ("--image", TRAIN_IMAGE, "--name", "job-1", *HERE, "--data")
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


def put_job(session: Session, found: dict[str, bytes]) -> None:
    for name, content in found.items():
        put(session, KEY.replace("model.tar.gz", name), content)


@pytest.fixture
def account(aws: Session, labels: dict[str, str], tmp_path: Path) -> Session:
    """An account with an image, and what a job has left."""
    put_job(aws, archives(tmp_path))
    return aws


# Requests


def test_the_requests_of_a_registration(call: Call, calls: list[str]) -> None:
    shown = call(deploy, *REGISTER, *HERE, "--dry-run").json
    assert [one["operation"] for one in shown] == ["CreateModelPackageGroup", "CreateModelPackage"]
    group, request = (one["request"] for one in shown)
    assert group == {"ModelPackageGroupName": GROUP, "Tags": [PROJECT]}
    assert request["ModelApprovalStatus"] == "PendingManualApproval"
    specification = request["InferenceSpecification"]
    assert specification["Containers"] == [{"Image": SERVE_IMAGE, "ModelDataUrl": MODEL}]
    assert "image/jpeg" in specification["SupportedContentTypes"]
    assert specification["SupportedResponseMIMETypes"] == ["application/json", "text/csv", "application/jsonlines"]
    assert specification["SupportedRealtimeInferenceInstanceTypes"][0] == "ml.m5.large"
    statistics = request["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert statistics == {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{QUALITY}"}
    # Of a job that is registered at its end.
    job, *others = call(train, *TRAIN, "s3://my-data/dogs", *REGISTERED, "--dry-run").json
    assert (job["operation"], [one["request"] for one in others]) == ("CreateTrainingJob", [group, request])
    assert calls == []


def test_the_requests_of_an_approval_and_of_a_deployment(call: Call, calls: list[str]) -> None:
    (shown,) = call(deploy, "--approve", f"{GROUP}:3", *HERE, "--dry-run").requests
    assert shown == {"ModelPackageArn": f"{ARN}/3", "ModelApprovalStatus": "Approved"}
    flags = ("--name", "byoc-x", "--environment", "A=1", "--dry-run")
    model = call(deploy, "--model-package", f"{GROUP}:3", *flags, *HERE).json[0]["request"]
    assert model["PrimaryContainer"] == {"ModelPackageName": f"{ARN}/3", "Environment": {"A": "1"}}
    assert "1 stands for it here" in call(deploy, "--model-package", GROUP, *HERE, "--dry-run").err
    assert calls == []


# Against moto


def test_from_an_artifact_to_an_endpoint(account: Session, flaky: FlakyAws, call: Call) -> None:
    for flag in ("--model-package", "--approve"):
        call(deploy, flag, f"{GROUP}:7").ends(1, f"{GROUP} has no version 7 in {REGION}: nothing is registered there")
    for number in (1, 2):
        assert call(deploy, *REGISTER).out == f"{GROUP}:{number}\n"
    client = account.client("sagemaker")
    (group,) = client.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert client.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"] == [PROJECT]
    made = client.describe_model_package(ModelPackageName=f"{ARN}/2")
    container = made["InferenceSpecification"]["Containers"][0]
    assert container == {"Image": SERVE_IMAGE, "ImageDigest": "sha256:" + "0" * 64, "ModelDataUrl": MODEL}
    card = flaky.requests["CreateModelPackage"]["ModelCard"]  # moto keeps none
    assert card["ModelCardStatus"] == "Draft"
    custom = json.loads(card["ModelCardContent"])["additional_information"]["custom_details"]
    facts = {"training job": "job-1", "data fingerprint": "abc", "serving image": SERVE_IMAGE}
    assert facts.items() <= custom.items()
    figures = json.loads(account.client("s3").get_object(Bucket=BUCKET, Key=QUALITY)["Body"].read())
    metrics = figures["multiclass_classification_metrics"]
    assert metrics["accuracy"] == {"value": 0.75, "standard_deviation": "NaN", "confidence_interval_95": [0.4, 0.95]}
    assert metrics["valid_accuracy"]["value"] == 0.8
    assert metrics["confusion_matrix"] == {"cat": {"cat": 3, "dog": 1}, "dog": {"cat": 0, "dog": 4}}

    # Nobody has approved one yet.
    ended = call(deploy, "--model-package", GROUP, "--name", "byoc-x")
    has = f"it has 1 {PENDING}, 2 {PENDING}; scripts/deploy.py --approve {GROUP}:N approves one"
    assert f"{GROUP} has no version that is Approved in {REGION}: {has}" in ended.last
    ended = call(deploy, "--model-package", f"{GROUP}:2", "--name", "byoc-x")
    ended.ends(1, f"{GROUP}:2 is PendingManualApproval: approve it with scripts/deploy.py --approve {GROUP}:2")
    assert client.list_models()["Models"] == []

    said = call(deploy, "--approve", f"{GROUP}:1", "--json").json
    assert said == {"model_package": f"{ARN}/1", "group": GROUP, "version": 1, "approval": "Approved"}
    assert "the image can serve it" in call(deploy, "--model-package", GROUP, "--name", "byoc-x").err
    container = client.describe_model(ModelName="byoc-x")["PrimaryContainer"]
    assert container == {"ModelPackageName": f"{ARN}/1"}

    # The newest approved one, at the same endpoint; then a certain one.
    assert call(deploy, "--approve", GROUP).out == f"{GROUP}:2\n"
    for wanted, version in ((GROUP, 2), (f"{GROUP}:1", 1)):
        assert call(deploy, "--model-package", wanted, "--name", "byoc-x", "--update").code == 0
        config = client.describe_endpoint(EndpointName="byoc-x")["EndpointConfigName"]
        assert client.describe_model(ModelName=config)["PrimaryContainer"] == {"ModelPackageName": f"{ARN}/{version}"}
    call(deploy, "--approve", GROUP).ends(1, f"{GROUP} has no version that is PendingManualApproval")


def test_what_cannot_be_served_is_not_registered(
    account: Session, tmp_path: Path, call: Call, calls: list[str]
) -> None:
    put(account, KEY, models.archive(tmp_path / "damaged", "flipped"))
    call(deploy, *REGISTER).ends(1, "corrupt")
    assert not [one for one in calls if "ModelPackage" in one or one == "s3:PutObject"]


@pytest.mark.usefixtures("account")
def test_a_version_that_the_service_refuses(call: Call, monkeypatch: Patch) -> None:
    answer = {
        "ModelPackageArn": f"{ARN}/1", "ModelPackageGroupName": GROUP, "ModelPackageVersion": 1,
        "ModelPackageStatus": "Failed", "CreationTime": 0,
        "InferenceSpecification": {"Containers": [{"Image": SERVE_IMAGE, "ModelDataUrl": MODEL}]},
        "ModelPackageStatusDetails": {
            "ValidationStatuses": [{"Name": "x", "Status": "Failed", "FailureReason": "no such image"}]
        },
    }  # fmt: skip
    give(monkeypatch, "DescribeModelPackage", answer)
    call(deploy, *REGISTER).ends(1, f"the model package {GROUP}:1 is Failed: no such image")


@pytest.mark.parametrize("output", [None, b"no archive", gzip.compress(bytes(10240), mtime=0)])
def test_without_a_confusion_matrix(aws: Session, tmp_path: Path, capsys: Capture, output: bytes | None) -> None:
    put_job(aws, archives(tmp_path, matrix=False) | ({"output.tar.gz": output} if output else {}))
    assert documents.confusion(Aws(REGION), S3Uri.parse(MODEL, "-")) is None
    assert "no confusion matrix is registered: s3://" in capsys.readouterr().err


def test_the_card_is_one_by_the_sdk() -> None:
    importlib.import_module("scripts.jobs.sdk")  # keeps the SDK quiet
    from sagemaker.model_card import model_card as sdk

    model = {**DETAILS, "architecture": "resnet50", "precision": "int8", "classes": ["cat", "dog"]}
    card = json.loads(documents.card(model, S3Uri.parse(MODEL, "-"), SERVE_IMAGE))
    details = sdk.TrainingDetails._from_dict(dict(card["training_details"]))
    hyperparameters = details.training_job_details.hyper_parameters
    assert {one.name: one.value for one in hyperparameters} == {"lr": "0.01", "epochs": "3"}
    assert details.training_job_details.training_environment.container_image == ["trainer:1"]
    assert details.training_observations == "a warning of the training"
    (evaluation,) = [sdk.EvaluationJob._from_dict(dict(one)) for one in card["evaluation_details"]]
    values = {one.name: (one.value, one.notes) for one in evaluation.metric_groups[0].metric_data}
    assert values["accuracy on test"] == (0.75, "8 images; 95 % interval 0.4000 to 0.9500")
    custom = sdk.AdditionalInformation._from_dict(dict(card["additional_information"])).custom_details
    assert (custom["architecture"], custom["classes"], custom["images of train"]) == ("resnet50", "2", "40")
    assert len(documents.card({}, S3Uri.parse(MODEL, "-"), SERVE_IMAGE)) > 0  # of an artifact of others


# train.py


@pytest.fixture
def data(account: Session) -> str:
    return put_data(account)


def test_a_job_ends_in_the_registry(account: Session, data: str, call: Call) -> None:
    ended = call(train, *TRAIN, data, *REGISTERED)
    assert (ended.code, ended.out) == (0, f"{MODEL}\n")
    assert f"registered {GROUP}:1, which waits for approval: scripts/deploy.py --approve {GROUP}:1" in ended.err
    (made,) = account.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    assert (made["ModelPackageArn"], made["ModelApprovalStatus"]) == (f"{ARN}/1", "PendingManualApproval")


def test_a_registration_that_fails_can_be_made_later(data: str, call: Call, monkeypatch: Patch) -> None:
    assert call(train, *TRAIN, data, "--no-wait").code == 0
    give(monkeypatch, "CreateModelPackage", error("AccessDeniedException", "not authorized"))
    ended = call(train, "--attach", "job-1", *REGISTERED)
    assert ended.code == 1
    later = f"scripts/deploy.py --image {SERVE_IMAGE} --job job-1 --register {GROUP} does it"
    assert f"is not registered: {later}" in ended.last
    give(monkeypatch, "CreateModelPackage", PASS)
    assert call(deploy, "--image", SERVE_IMAGE, "--job", "job-1", "--register", GROUP).out == f"{GROUP}:1\n"


@pytest.mark.usefixtures("image")
def test_a_serving_image_that_is_missing_costs_no_job(call: Call, calls: list[str]) -> None:
    call(train, *TRAIN, "s3://my-data/dogs", *REGISTERED).ends(1, f"the image {SERVE_IMAGE} is not in ECR")
    assert "sagemaker:CreateTrainingJob" not in calls


# Cleanup


def groups(session: Session) -> list[str]:
    found = session.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
    return sorted(one["ModelPackageGroupName"] for one in found)


def test_cleanup_removes_versions_and_their_group(account: Session, call: Call) -> None:
    for _ in range(2):
        call(deploy, *REGISTER)
    account.client("sagemaker").create_model_package_group(ModelPackageGroupName="byoc-by-hand")
    found = call(cleanup, "--json").json["found"]
    kinds = [(one["kind"], one["name"], one["status"]) for one in found if one["kind"].startswith("model package")]
    assert sorted(kinds) == [
        ("model package", f"{ARN}/1", "PendingManualApproval"),
        ("model package", f"{ARN}/2", "PendingManualApproval"),
        ("model package group", GROUP, "Completed"),
    ]
    # What a model uses stays.
    assert call(deploy, "--approve", f"{GROUP}:1").code == 0
    assert call(deploy, "--model-package", GROUP, "--name", "byoc-x").code == 0
    ended = call(cleanup, "--packages", "--yes")
    ended.says(
        f"deleted model package {ARN}/2",
        f"left: model package {ARN}/1, which the model byoc-x uses",
        f"left: model package group {GROUP}, which the model package {ARN}/1 uses",
    )
    ended = call(cleanup, "--all", "--packages", "--yes")
    assert ended.err.index(f"deleted model package {ARN}/1") < ended.err.index(f"deleted model package group {GROUP}")
    assert groups(account) == ["byoc-by-hand"]
    assert account.client("sagemaker").list_model_packages(ModelPackageType="Both")["ModelPackageSummaryList"] == []
