"""deploy.py: the requests it makes, what it refuses before it makes any, and what it leaves when something fails."""

import json
import re
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import EndpointConnectionError
from botocore.model import ServiceModel
from botocore.parsers import ResponseParserError

from container_serve.artifact import FORMAT_VERSION
from scripts import deploy
from scripts.aws import names, requests
from scripts.aws.account import loader
from scripts.aws.errors import CloudError
from scripts.console.command import run
from scripts.endpoints import deployment, lookup
from scripts.images import registry
from tests.cloud import models
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-serve:0.1.0"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
KEY = "byoc/job-1/output/model.tar.gz"
MODEL = f"s3://{BUCKET}/{KEY}"
LABELS = {"org.opencontainers.image.title": "byoc-serve", "byoc.format-version": str(FORMAT_VERSION)}
PROJECT = {"Key": "byoc-project", "Value": "byoc"}
OFFLINE = ("--image", IMAGE, "--role", ROLE, "--region", REGION)
CALL = ("--image", IMAGE, "--model-data", MODEL, "--name", "byoc-dogs")


def call(*arguments: str) -> int:
    return run("deploy.py", deploy.main, arguments)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The labels of the image in ECR; a test may change them."""
    labels = dict(LABELS)
    monkeypatch.setattr(registry, "find", lambda aws, image: "sha256:" + "0" * 64)
    monkeypatch.setattr(registry, "image_labels", lambda aws, image: labels or None)
    monkeypatch.setattr(registry, "image_architecture", lambda aws, image: "amd64")
    return labels


@pytest.fixture
def account(aws: boto3.Session, image: dict[str, str], tmp_path: Path) -> boto3.Session:
    """An account with an image and a model."""
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path))
    return aws


def made(session: boto3.Session) -> dict[str, list[str]]:
    """The names of what there is in SageMaker."""
    client = session.client("sagemaker")
    return {
        "models": sorted(item["ModelName"] for item in client.list_models()["Models"]),
        "configurations": sorted(
            item["EndpointConfigName"] for item in client.list_endpoint_configs()["EndpointConfigs"]
        ),
        "endpoints": sorted(item["EndpointName"] for item in client.list_endpoints()["Endpoints"]),
    }


NOTHING: dict[str, list[str]] = {"models": [], "configurations": [], "endpoints": []}
DOGS = {"models": ["byoc-dogs"], "configurations": ["byoc-dogs"], "endpoints": ["byoc-dogs"]}


# Requests


def test_golden_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*OFFLINE, "--model-data", MODEL, "--name", "byoc-dogs", "--dry-run") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "service": "sagemaker",
            "operation": "CreateModel",
            "request": {
                "ModelName": "byoc-dogs",
                "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": MODEL},
                "ExecutionRoleArn": ROLE,
                "EnableNetworkIsolation": False,
                "Tags": [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}],
            },
        },
        {
            "service": "sagemaker",
            "operation": "CreateEndpointConfig",
            "request": {
                "EndpointConfigName": "byoc-dogs",
                "ProductionVariants": [
                    {
                        "VariantName": "AllTraffic",
                        "ModelName": "byoc-dogs",
                        "InstanceType": "ml.m5.large",
                        "InitialInstanceCount": 1,
                        "InitialVariantWeight": 1.0,
                        "ModelDataDownloadTimeoutInSeconds": 600,
                        "ContainerStartupHealthCheckTimeoutInSeconds": 600,
                    }
                ],
                "Tags": [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}],
            },
        },
        {
            "service": "sagemaker",
            "operation": "CreateEndpoint",
            "request": {"EndpointName": "byoc-dogs", "EndpointConfigName": "byoc-dogs", "Tags": [PROJECT]},
        },
    ]


def test_golden_requests_of_an_update_with_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    flags = (
        "--name byoc-dogs --update --strategy canary --wait-interval 60 --alarm errors --alarm latency --instance-type"
    )
    flags += " ml.c5.xlarge --instance-count 4"
    flags += " --network-isolation --startup-timeout 120 --download-timeout 300"
    flags += " --environment BYOC_THREADS=2 --environment SAGEMAKER_CONTAINER_LOG_LEVEL=DEBUG --tags team=vision"
    flags += " --subnets subnet-1,subnet-2 --security-groups sg-1 --volume-kms-key 1234abcd"
    assert call(*OFFLINE, "--model-data", MODEL, *flags.split(), "--dry-run") == 0
    tags = [PROJECT, {"Key": "team", "Value": "vision"}, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}]
    assert json.loads(capsys.readouterr().out) == [
        {
            "service": "sagemaker",
            "operation": "CreateModel",
            "request": {
                "ModelName": "byoc-dogs-now",
                "PrimaryContainer": {
                    "Image": IMAGE,
                    "ModelDataUrl": MODEL,
                    "Environment": {"BYOC_THREADS": "2", "SAGEMAKER_CONTAINER_LOG_LEVEL": "DEBUG"},
                },
                "ExecutionRoleArn": ROLE,
                "EnableNetworkIsolation": True,
                "Tags": tags,
                "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
            },
        },
        {
            "service": "sagemaker",
            "operation": "CreateEndpointConfig",
            "request": {
                "EndpointConfigName": "byoc-dogs-now",
                "ProductionVariants": [
                    {
                        "VariantName": "AllTraffic",
                        "ModelName": "byoc-dogs-now",
                        "InstanceType": "ml.c5.xlarge",
                        "InitialInstanceCount": 4,
                        "InitialVariantWeight": 1.0,
                        "ModelDataDownloadTimeoutInSeconds": 300,
                        "ContainerStartupHealthCheckTimeoutInSeconds": 120,
                    }
                ],
                "Tags": tags,
                "KmsKeyId": "1234abcd",
            },
        },
        {
            "service": "sagemaker",
            "operation": "UpdateEndpoint",
            "request": {
                "EndpointName": "byoc-dogs",
                "EndpointConfigName": "byoc-dogs-now",
                "RetainAllVariantProperties": False,
                "DeploymentConfig": {
                    "BlueGreenUpdatePolicy": {
                        "TrafficRoutingConfiguration": {
                            "Type": "CANARY",
                            "WaitIntervalInSeconds": 60,
                            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
                        }
                    },
                    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}, {"AlarmName": "latency"}]},
                },
            },
        },
    ]


@pytest.mark.parametrize(("kind", "takes_it"), [("ml.c5d.xlarge", False), ("ml.c5.xlarge", True)])
def test_a_volume_key_is_left_out_with_a_word_where_disks_have_their_own(
    capsys: pytest.CaptureFixture[str], kind: str, takes_it: bool
) -> None:
    flags = ("--model-data", MODEL, "--volume-kms-key", "1234abcd", "--instance-type", kind, "--dry-run")
    assert call(*OFFLINE, *flags) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)[1]["request"].get("KmsKeyId") == "1234abcd") == takes_it
    assert ("ml.c5d.xlarge has disks of its own" in captured.err) != takes_it


def test_a_jobs_model_in_a_dry_run_is_where_train_py_lets_it_be_put(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*OFFLINE, "--job", "byoc-train-1", "--dry-run") == 0
    captured = capsys.readouterr()
    model, _, endpoint = json.loads(captured.out)
    address = model["request"]["PrimaryContainer"]["ModelDataUrl"]
    assert address == f"s3://{BUCKET}/byoc/byoc-train-1/output/model.tar.gz"
    assert "is taken to lie" in captured.err
    assert re.fullmatch(r"byoc-serve-\d{8}-\d{6}-[0-9a-f]{4}", endpoint["request"]["EndpointName"])


@pytest.mark.parametrize("strategy", deployment.STRATEGIES)
def test_every_strategy_is_one_the_service_takes(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--name", "byoc-dogs", "--update", "--strategy", strategy, "--instance-count", "2", "--dry-run")
    assert call(*OFFLINE, "--model-data", MODEL, *flags) == 0
    update = json.loads(capsys.readouterr().out)[-1]["request"]
    assert ("DeploymentConfig" in update) == (strategy != "all-at-once")
    assert ("RollingUpdatePolicy" in update.get("DeploymentConfig", {})) == (strategy == "rolling")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*OFFLINE,), "no model"),
        (("--model-data", MODEL, "--role", ROLE, "--region", REGION), "no image"),
        (("--model-data", MODEL, "--image", IMAGE, "--region", REGION), "no role"),
        (("--model-data", MODEL, "--image", IMAGE, "--role", ROLE), "no region"),
        ((*OFFLINE, "--model-data", MODEL, "--job", "j"), "give one of them"),
        ((*OFFLINE, "--model-data", f"s3://{BUCKET}/byoc/job-1/output"), "model.tar.gz, the file itself"),
        ((*OFFLINE, "--model-data", MODEL, "--image", "byoc-serve:1"), "expected ACCOUNT.dkr.ecr"),
        ((*OFFLINE, "--model-data", MODEL, "--region", "us-east-1"), "images of its own region"),
        ((*OFFLINE, "--model-data", MODEL, "--instance-type", "ml.m5.large,ml.m5.large"), "names a type twice"),
        ((*OFFLINE, "--model-data", MODEL, "--instance-type", "ml.m5.large,ml.c5.largee"), "did you mean ml.c5"),
        (
            (*OFFLINE, "--model-data", MODEL, "--register", "byoc-g", "--instance-type", "ml.m5.large,ml.c5.large"),
            "give one",
        ),
        ((*OFFLINE, "--model-data", MODEL, "--instance-type", "ml.m5.largee"), "did you mean ml.m5"),
        ((*OFFLINE, "--model-data", MODEL, "--name", "dogs_1"), "--name"),
        ((*OFFLINE, "--model-data", MODEL, "--update"), "--name"),
        ((*OFFLINE, "--model-data", MODEL, "--prune"), "go with --update"),
        (
            (
                *OFFLINE,
                "--model-data",
                MODEL,
                "--name",
                "byoc-a",
                "--update",
                "--strategy",
                "rolling",
                "--instance-count",
                "1",
            ),
            "--instance-count",
        ),
        ((*OFFLINE, "--model-data", MODEL, "--environment", "BYOC_THREADS"), "KEY=VALUE"),
        ((*OFFLINE, "--model-data", MODEL, "--environment", "BYOC_THREADS=x"), "--environment BYOC_THREADS: got 'x'"),
        (
            (*OFFLINE, "--model-data", MODEL, "--environment", "SAGEMAKER_MULTI_MODEL=True"),
            "an endpoint of one model; a server",
        ),
        (
            ("--local", "--model-data", "x", "--environment", "SAGEMAKER_MULTI_MODEL=true"),
            "an endpoint of one model; a server",
        ),
        ((*OFFLINE, "--model-data", MODEL, "--port", "8080"), "--local"),
        (("--local", "--job", "j"), "no --job"),
        (("--local",), "no model"),
        (("--attach", "byoc-a", "--image", IMAGE), "--attach"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call(*arguments, "--dry-run" if "--attach" not in arguments and "--local" not in arguments else "--json") == 2
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err.splitlines()[-1]


def test_a_gpu_is_pointless_and_a_foreign_name_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call(*OFFLINE, "--model-data", MODEL, "--instance-type", "ml.g4dn.xlarge", "--name", "dogs", "--dry-run") == 0
    )
    captured = capsys.readouterr()
    assert "accelerator that this server does not use" in captured.err
    assert "does not begin with byoc" in captured.err
    assert json.loads(captured.out)[0]["request"]["ModelName"] == "byoc-dogs"


@pytest.mark.parametrize("name", ["byoc-a", "a", "x" * 63])
def test_models_begin_with_the_project_and_fit(name: str) -> None:
    made_of = deployment.resource_name(name, "byoc")
    assert made_of.startswith("byoc")
    assert names.checked(made_of) == made_of


# Making one


def test_made_and_in_service(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*CALL) == 0
    captured = capsys.readouterr()
    assert captured.out == "byoc-dogs\n"
    assert made(account) == DOGS
    for expected in (
        "the image can serve it: resnet50, 2 classes, fp32",
        "1 x ml.m5.large: 0.12 USD an hour",
        f"scripts/cleanup.py byoc-dogs --region {REGION}",
        f"scripts/predict.py byoc-dogs IMAGE --region {REGION}",
    ):
        assert expected in captured.err
    client = account.client("sagemaker")
    for arn in (
        client.describe_endpoint(EndpointName="byoc-dogs")["EndpointArn"],
        client.describe_endpoint_config(EndpointConfigName="byoc-dogs")["EndpointConfigArn"],
        client.describe_model(ModelName="byoc-dogs")["ModelArn"],
    ):
        assert PROJECT in client.list_tags(ResourceArn=arn)["Tags"]


def test_an_instance_type_that_is_newer_than_boto3(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = loader().load_service_model("sagemaker", "service-2")
    words = [word for word in document["shapes"]["ProductionVariantInstanceType"]["enum"] if word != "ml.c5.xlarge"]
    shapes = {**document["shapes"], "ProductionVariantInstanceType": {"type": "string", "enum": words}}
    monkeypatch.setattr(requests, "model", lambda service: ServiceModel({**document, "shapes": shapes}, service))
    for mode in (("--dry-run",), ()):
        assert call(*CALL, "--instance-type", "ml.c5.xlarge", *mode) == 2
        assert "(--allow-unknown sends it all the same)" in last_line(capsys)
        assert call(*CALL, "--instance-type", "ml.c5.xlarge", *mode, "--allow-unknown") == 0
    configuration = account.client("sagemaker").describe_endpoint_config(EndpointConfigName="byoc-dogs")
    assert configuration["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"


def test_json(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*CALL, "--json", "--no-wait") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result.pop("seconds") >= 0
    assert result == {
        "endpoint": "byoc-dogs",
        "status": "Creating",
        "mode": "real-time",
        "region": REGION,
        "configuration": "byoc-dogs",
        "model": "byoc-dogs",
        "image": IMAGE,
        "model_data": MODEL,
        "instance_type": "ml.m5.large",
        "instance_count": 1,
        "usd_per_hour": 0.115,
        "autoscaling": None,
        "previous_configuration": None,
        "removed": [],
    }
    assert "scripts/deploy.py --attach byoc-dogs" in captured.err


def test_of_a_job(account: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    account.client("sagemaker").create_training_job(
        TrainingJobName="job-1",
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        RoleArn=ROLE,
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    assert call("--image", IMAGE, "--job", "job-1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model_data"] == MODEL

    assert call("--image", IMAGE, "--job", "job-2") == 1
    assert "there is no training job job-2" in last_line(capsys)
    described = account.client("sagemaker").describe_training_job(TrainingJobName="job-1")
    described["TrainingJobStatus"] = "Failed"
    give(monkeypatch, "DescribeTrainingJob", described)
    assert call("--image", IMAGE, "--job", "job-1") == 1
    assert "job-1 is Failed: only a completed one" in last_line(capsys)


# Refused before anything is made


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("newer", "format_version 99"),
        ("without model.json", "model.json: missing"),
        ("cut", "is damaged"),
        ("flipped", "model.bin: corrupt"),
        ("nested", "lies in inner/ inside the archive"),
        ("own code", "serve-torch"),
    ],
)
def test_an_artifact_that_the_image_cannot_serve(
    account: boto3.Session, tmp_path: Path, change: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = models.archive(tmp_path / "changed", change)
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=content)
    assert call(*CALL) == 1
    line = last_line(capsys)
    assert complaint in line
    assert MODEL in line
    assert "/tmp" not in line
    assert made(account) == NOTHING


def test_own_code_is_served_by_the_image_for_it(
    account: boto3.Session, image: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image["org.opencontainers.image.title"] = "byoc-serve-torch"
    content = models.archive(tmp_path / "changed", "own code")
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=content)
    assert call(*CALL) == 0
    assert made(account) == DOGS


def test_an_image_older_than_the_artifact(
    account: boto3.Session, image: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    image["byoc.format-version"] = "0"
    assert call(*CALL) == 1
    assert "reads up to 0: serve it with a newer image" in last_line(capsys)
    assert made(account) == NOTHING


def test_the_image_that_trains_is_refused(
    account: boto3.Session, image: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    image["org.opencontainers.image.title"] = "byoc-train"
    assert call(*CALL) == 2
    assert "the image that trains" in last_line(capsys)


def test_a_variable_that_the_server_would_refuse(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*CALL, "--environment", "BYOC_THREADS=many") == 2
    assert "--environment BYOC_THREADS: got 'many'" in last_line(capsys)
    assert made(account) == NOTHING


@pytest.mark.parametrize("labels", [{}, {"org.opencontainers.image.title": "byoc-serve"}])
@pytest.mark.parametrize(("change", "complaint"), [("cut", "is damaged"), ("flipped", "model.bin: corrupt")])
def test_a_damaged_artifact_needs_no_label_to_be_refused(
    account: boto3.Session, image: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    labels: dict[str, str], change: str, complaint: str,
) -> None:  # fmt: skip
    image.clear()
    image.update(labels)
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path / "changed", change))
    assert call(*CALL) == 1
    assert complaint in last_line(capsys)
    assert made(account) == NOTHING


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "is whole (resnet50, 2 classes, fp32)"),
        ("newer", "is newer than this checkout"),
        ("own code", "is whole"),
        ("without model.json", "are not of this project"),
        ("nested", "are not of this project"),
        ("model.json of others", "are not of this project"),
        ("link", "is whole"),
    ],
)
def test_what_an_image_of_others_serves_is_its_own_affair(
    account: boto3.Session, image: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    change: str | None, said: str,
) -> None:  # fmt: skip
    image.clear()
    content = models.archive(tmp_path / "changed", change)
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=content)
    assert call(*CALL) == 0
    captured = capsys.readouterr()
    assert said in captured.err
    assert "not checked" in captured.err
    assert "/tmp" not in captured.err
    assert made(account) == DOGS


def test_an_image_of_others_is_not_checked_but_the_object_has_to_be_there(
    account: boto3.Session, image: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    image.clear()
    account.client("s3").delete_object(Bucket=BUCKET, Key=KEY)
    assert call(*CALL) == 1
    assert f"{MODEL} is not there" in last_line(capsys)
    account.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=b"anything")
    assert call(*CALL) == 1
    assert "not a .tar.gz archive" in last_line(capsys)


def test_what_is_missing_is_said_in_one_line(
    aws: boto3.Session, image: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*CALL) == 1
    assert f"{MODEL} is not there" in last_line(capsys)
    assert call(*CALL[:2], "--model-data", "s3://not-a-bucket-of-ours/model.tar.gz", "--name", "byoc-a") == 1
    assert "make the bucket" in last_line(capsys)

    def missing(aws: object, image: object) -> str:
        raise CloudError("the image is not in ECR: push it with scripts/push.sh")

    monkeypatch.setattr(registry, "find", missing)
    assert call(*CALL) == 1
    assert "not in ECR" in last_line(capsys)
    assert made(aws) == NOTHING


def test_a_name_that_is_taken(account: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*CALL) == 0
    assert call(*CALL) == 1
    assert "the endpoint byoc-dogs already exists (InService): change it with --update" in last_line(capsys)
    account.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call(*CALL) == 1
    assert "is left from an endpoint of this name: remove it with scripts/cleanup.py byoc-dogs" in last_line(capsys)


# Failures on the way


@pytest.mark.parametrize(
    ("operation", "answer", "complaint"),
    [
        ("CreateModel", error("ThrottlingException", "Rate exceeded"), "throttles"),
        ("CreateEndpointConfig", error("AccessDeniedException", "not authorized"), "scripts/iam/scripts.json"),
        ("CreateEndpoint", error("ResourceLimitExceeded", "The limit for 'ml.m5.large' is 0"), "Service Quotas"),
        ("CreateEndpointConfig", EndpointConnectionError(endpoint_url="https://api.sagemaker"), "cannot be reached"),
        ("CreateEndpointConfig", KeyboardInterrupt(), "interrupted"),
    ],
)
def test_half_way_nothing_is_left(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], operation: str,
    answer: Any, complaint: str,
) -> None:  # fmt: skip
    break_off(monkeypatch, operation, answer)
    assert call(*CALL) in (1, 130)
    assert complaint in last_line(capsys)
    assert made(account) == NOTHING


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (EndpointConnectionError(endpoint_url="https://api.sagemaker"), "cannot be reached"),
        (
            error("InternalFailure", "try later", ResponseMetadata={"HTTPStatusCode": 500}),
            "try later (InternalFailure)",
        ),
        (ResponseParserError("not JSON"), "what answered is not AWS"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_an_endpoint_may_need_yet_is_left(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any,
    complaint: str,
) -> None:  # fmt: skip
    """Of a request that broke off nobody knows whether it is performed yet; model and configuration cost nothing."""
    break_off(monkeypatch, "CreateEndpoint", answer)
    assert call(*CALL) in (1, 130)
    line = last_line(capsys)
    assert complaint in line
    assert f"remove it: scripts/cleanup.py byoc-dogs --region {REGION}" in line
    assert made(account) == {**DOGS, "endpoints": []}


def test_ctrl_c_while_it_takes_back_says_what_is_left(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "CreateEndpoint", error("ResourceLimitExceeded", "The limit for 'ml.m5.large' is 0"))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.resources.removal.send", interrupted)
    assert call(*CALL) == 130
    line = last_line(capsys)
    assert (
        "still to remove: configuration byoc-dogs, model byoc-dogs; scripts/cleanup.py --unused does it later" in line
    )


def break_off(monkeypatch: pytest.MonkeyPatch, operation: str, answer: Any) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if not isinstance(answer, KeyboardInterrupt):
        give(monkeypatch, operation, answer)
        return
    original = requests.send

    def broken(aws: Any, request: Any) -> Any:
        if request.operation == operation:
            raise KeyboardInterrupt
        return original(aws, request)

    monkeypatch.setattr("scripts.aws.creation.send", broken)


def endpoint(status: str, configuration: str = "byoc-dogs", **more: Any) -> dict[str, Any]:
    """DescribeEndpoint's answer."""
    return {
        "EndpointName": "byoc-dogs",
        "EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs",
        "EndpointConfigName": configuration,
        "EndpointStatus": status,
        **more,
    }


NONE = error("ValidationException", 'Could not find endpoint "byoc-dogs".')


def test_an_endpoint_that_fails_is_explained_and_removed(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = account.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/byoc-dogs")
    logs.create_log_stream(logGroupName="/aws/sagemaker/Endpoints/byoc-dogs", logStreamName="AllTraffic/i-1")
    logs.put_log_events(
        logGroupName="/aws/sagemaker/Endpoints/byoc-dogs",
        logStreamName="AllTraffic/i-1",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": "server: model.bin: corrupt"}],
    )
    failed = endpoint("Failed", FailureReason="The primary container did not pass the ping health check.")
    give(monkeypatch, "DescribeEndpoint", NONE, endpoint("Creating"), endpoint("Creating"), failed, failed, NONE)
    assert call(*CALL) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "byoc-dogs: Creating, 0:00 min" in lines
    assert "  server: model.bin: corrupt" in lines
    assert "is Failed: The primary container did not pass the ping health check." in lines[-1]
    assert "/aws/sagemaker/Endpoints/byoc-dogs" in lines[-1]
    assert made(account) == NOTHING


def test_ctrl_c_leaves_it_going_and_says_how_to_come_back(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as interrupted:
        give(interrupted, "DescribeEndpoint", NONE, endpoint("Creating"))

        def ctrl_c(seconds: float) -> None:
            raise KeyboardInterrupt

        interrupted.setattr("time.sleep", ctrl_c)
        assert call(*CALL) == 130
    line = last_line(capsys)
    assert f"scripts/deploy.py --attach byoc-dogs --region {REGION}" in line
    assert f"scripts/cleanup.py byoc-dogs --region {REGION}" in line
    assert made(account) == DOGS
    assert call("--attach", "byoc-dogs", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "endpoint": "byoc-dogs",
        "status": "InService",
        "region": REGION,
        "configuration": "byoc-dogs",
    }


def test_a_network_that_stays_down_does_not_hide_what_goes_on(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(lookup, "ENDPOINT_SECONDS", -1.0)
    gone = EndpointConnectionError(endpoint_url="https://api.sagemaker")
    give(monkeypatch, "DescribeEndpoint", NONE, endpoint("Creating"), gone)
    assert call(*CALL) == 1
    line = last_line(capsys)
    assert "cannot be reached" in line
    assert "scripts/deploy.py --attach byoc-dogs" in line


# Changing one


@pytest.fixture
def live(account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> boto3.Session:
    """An endpoint that serves, made with the requests of deploy.py."""
    assert call(*CALL, "--role", ROLE, "--dry-run") == 0
    for one in json.loads(capsys.readouterr().out):
        getattr(account.client("sagemaker"), xform_name(one["operation"]))(**one["request"])
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    return account


BEFORE_AND_AFTER = {
    "models": ["byoc-dogs", "byoc-dogs-now"],
    "configurations": ["byoc-dogs", "byoc-dogs-now"],
    "endpoints": ["byoc-dogs"],
}
ACCEPTED = {"EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"}


@pytest.mark.parametrize("status", ["Failed", "UpdateRollbackFailed"])
def test_an_update_whose_way_back_fails(
    live: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, endpoint(status, "byoc-dogs", FailureReason="no capacity"))
    assert call(*CALL, "--update") == 1
    assert f"byoc-dogs is {status} with the configuration from before, byoc-dogs: no capacity" in last_line(capsys)
    assert made(live) == DOGS


def test_what_a_broken_endpoint_may_still_run_is_not_removed(
    live: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, endpoint("UpdateRollbackFailed", "byoc-dogs-now"))
    assert call(*CALL, "--update") == 1
    assert "remove it with scripts/cleanup.py byoc-dogs" in last_line(capsys)
    assert made(live) == BEFORE_AND_AFTER


def test_an_update_that_is_refused_leaves_nothing_new(
    live: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "UpdateEndpoint", error("ResourceLimitExceeded", "limit is 1"))
    assert call(*CALL, "--update") == 1
    assert "Service Quotas" in last_line(capsys)
    assert made(live) == DOGS


@pytest.mark.parametrize(
    ("described", "complaint"),
    [
        (NONE, "there is no endpoint byoc-dogs"),
        (endpoint("Updating"), "is Updating: wait for that first"),
        (endpoint("Failed"), "is Failed and cannot be updated"),
    ],
)
def test_an_endpoint_that_cannot_be_updated(
    live: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], described: Any,
    complaint: str,
) -> None:  # fmt: skip
    give(monkeypatch, "DescribeEndpoint", described)
    assert call(*CALL, "--update") == 1
    assert complaint in last_line(capsys)
    assert made(live) == DOGS


def test_an_endpoint_of_others_is_not_changed(live: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*CALL, "--update", "--project", "birds") == 1
    assert "has no tag byoc-project=birds" in last_line(capsys)
    assert made(live) == DOGS


def test_instances_are_not_lost_without_a_word(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*CALL, "--instance-type", "ml.c5.xlarge", "--instance-count", "3") == 0
    assert call(*CALL, "--update") == 2
    assert "runs on 3 x ml.c5.xlarge: say with --instance-type" in last_line(capsys)
    assert call(*CALL, "--update", "--instance-type", "ml.c5.xlarge", "--instance-count", "1", "--strategy", "rolling")
    assert "it needs --instance-count 2" in last_line(capsys)
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    assert call(*CALL, "--update", "--instance-type", "ml.m5.large", "--instance-count", "1", "--no-wait") == 0


def test_attach_follows_an_update_to_its_end(
    live: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    updating = endpoint("Updating", PendingDeploymentSummary={"EndpointConfigName": "byoc-dogs-now"})
    give(monkeypatch, "DescribeEndpoint", updating, updating, endpoint("InService", "byoc-dogs-now"))
    assert call("--attach", "byoc-dogs") == 0
    assert capsys.readouterr().out == "byoc-dogs\n"
    back = endpoint("InService", FailureReason="alarm errors")
    give(monkeypatch, "DescribeEndpoint", updating, updating, back)
    assert call("--attach", "byoc-dogs") == 1
    assert "serves the configuration from before, byoc-dogs: alarm errors" in last_line(capsys)
    give(monkeypatch, "DescribeEndpoint", endpoint("Failed", FailureReason="no"))
    assert call("--attach", "byoc-dogs") == 1
    assert "is Failed: no; remove it with scripts/cleanup.py byoc-dogs" in last_line(capsys)


def test_attach_to_nothing(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--attach", "byoc-dogs") == 1
    assert f"there is no endpoint byoc-dogs in {REGION}" in last_line(capsys)


# The image's label


def test_the_dockerfile_says_what_the_server_reads() -> None:
    text = (Path(__file__).parents[2] / "docker" / "serve.Dockerfile").read_text()
    assert re.findall(r'byoc\.format-version="(\d+)"', text) == [str(FORMAT_VERSION)]
