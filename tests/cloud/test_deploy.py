"""deploy.py: the requests it makes, what it refuses before it makes any, and what it leaves when something fails."""

import re
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session
from botocore.exceptions import EndpointConnectionError
from botocore.model import ServiceModel
from botocore.parsers import ResponseParserError

from container_serve.artifact import FORMAT_VERSION
from scripts import deploy
from scripts.aws import names, requests
from scripts.aws.account import loader
from scripts.endpoints import deployment, lookup
from tests.cloud.answers import ctrl_c, error, give
from tests.cloud.conftest import BUCKET, CALL, MODEL, OFFLINE, PROJECT, REGION, ROLE, SERVE_IMAGE, Call
from tests.cloud.resources import DOGS, NOTHING, configuration, create_job, described, there, write_log
from tests.conftest import Patch

DRY = (*OFFLINE, "--dry-run")
GONE = EndpointConnectionError(endpoint_url="https://api.sagemaker")
NO_QUOTA = error("ResourceLimitExceeded", "The limit for 'ml.m5.large' is 0")
NONE = error("ValidationException", 'Could not find endpoint "byoc-dogs".')


# Requests


def variant(name: str, kind: str, count: int, download: int, startup: int) -> dict[str, Any]:
    return {
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": kind, "InitialInstanceCount": count,
        "InitialVariantWeight": 1.0, "ModelDataDownloadTimeoutInSeconds": download,
        "ContainerStartupHealthCheckTimeoutInSeconds": startup,
    }  # fmt: skip


def test_golden_requests(call: Call) -> None:
    tags = [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}]
    shown = call(deploy, *DRY, "--model-data", MODEL, "--name", "byoc-dogs").json
    assert [one["operation"] for one in shown] == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    assert [one["request"] for one in shown] == [
        {
            "ModelName": "byoc-dogs",
            "PrimaryContainer": {"Image": SERVE_IMAGE, "ModelDataUrl": MODEL},
            "ExecutionRoleArn": ROLE,
            "EnableNetworkIsolation": False,
            "Tags": tags,
        },
        {
            "EndpointConfigName": "byoc-dogs",
            "ProductionVariants": [variant("byoc-dogs", "ml.m5.large", 1, 600, 600)],
            "Tags": tags,
        },
        {"EndpointName": "byoc-dogs", "EndpointConfigName": "byoc-dogs", "Tags": [PROJECT]},
    ]


def test_golden_requests_of_an_update_with_everything(call: Call, monkeypatch: Patch) -> None:
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    flags = (
        "--name byoc-dogs --update --strategy canary --wait-interval 60 --alarm errors --alarm latency --instance-type"
        " ml.c5.xlarge --instance-count 4 --network-isolation --startup-timeout 120 --download-timeout 300"
        " --environment BYOC_THREADS=2 --environment SAGEMAKER_CONTAINER_LOG_LEVEL=DEBUG --tags team=vision"
        " --subnets subnet-1,subnet-2 --security-groups sg-1 --volume-kms-key 1234abcd"
    )
    tags = [PROJECT, {"Key": "team", "Value": "vision"}, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}]
    environment = {"BYOC_THREADS": "2", "SAGEMAKER_CONTAINER_LOG_LEVEL": "DEBUG"}
    canary = {
        "Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
    }  # fmt: skip
    shown = call(deploy, *DRY, "--model-data", MODEL, *flags.split()).json
    assert [one["operation"] for one in shown] == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    assert [one["request"] for one in shown] == [
        {
            "ModelName": "byoc-dogs-now",
            "PrimaryContainer": {"Image": SERVE_IMAGE, "ModelDataUrl": MODEL, "Environment": environment},
            "ExecutionRoleArn": ROLE,
            "EnableNetworkIsolation": True,
            "Tags": tags,
            "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        },
        {
            "EndpointConfigName": "byoc-dogs-now",
            "ProductionVariants": [variant("byoc-dogs-now", "ml.c5.xlarge", 4, 300, 120)],
            "Tags": tags,
            "KmsKeyId": "1234abcd",
        },
        {
            "EndpointName": "byoc-dogs",
            "EndpointConfigName": "byoc-dogs-now",
            "RetainAllVariantProperties": False,
            "DeploymentConfig": {
                "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary},
                "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}, {"AlarmName": "latency"}]},
            },
        },
    ]


@pytest.mark.parametrize("strategy", deployment.STRATEGIES)
def test_every_strategy_is_one_the_service_takes(strategy: str, call: Call) -> None:
    flags = ("--name", "byoc-dogs", "--update", "--strategy", strategy, "--instance-count", "2")
    update = call(deploy, *DRY, "--model-data", MODEL, *flags).json[-1]["request"]
    assert ("DeploymentConfig" in update) == (strategy != "all-at-once")
    assert ("RollingUpdatePolicy" in update.get("DeploymentConfig", {})) == (strategy == "rolling")


def test_what_is_noticed_of_a_request(call: Call) -> None:
    key = ("--model-data", MODEL, "--volume-kms-key", "1234abcd", "--instance-type", "ml.c5d.xlarge")
    ended = call(deploy, *DRY, *key)
    assert "KmsKeyId" not in ended.json[1]["request"]
    assert "ml.c5d.xlarge has disks of its own" in ended.err
    ended = call(deploy, *DRY, "--job", "byoc-train-1")
    model, _, endpoint = ended.requests
    assert model["PrimaryContainer"]["ModelDataUrl"] == f"s3://{BUCKET}/byoc/byoc-train-1/output/model.tar.gz"
    assert "is taken to lie" in ended.err
    assert re.fullmatch(r"byoc-serve-\d{8}-\d{6}-[0-9a-f]{4}", endpoint["EndpointName"])
    ended = call(deploy, *DRY, "--model-data", MODEL, "--instance-type", "ml.g4dn.xlarge", "--name", "dogs")
    ended.says("accelerator that this server does not use", "does not begin with byoc")
    assert ended.json[0]["request"]["ModelName"] == "byoc-dogs"


@pytest.mark.parametrize("name", ["byoc-a", "a", "x" * 63])
def test_models_begin_with_the_project_and_fit(name: str) -> None:
    made_of = deployment.resource_name(name, "byoc")
    assert made_of.startswith("byoc")
    assert names.checked(made_of) == made_of


# Making one


def test_made_and_in_service(account: Session, call: Call) -> None:
    ended = call(deploy, *CALL)
    assert (ended.code, ended.out) == (0, "byoc-dogs\n")
    assert there(account) == DOGS
    ended.says(
        "the image can serve it: resnet50, 2 classes, fp32",
        "1 x ml.m5.large: 0.12 USD an hour",
        f"scripts/cleanup.py byoc-dogs --region {REGION}",
        f"scripts/predict.py byoc-dogs IMAGE --region {REGION}",
    )
    client = account.client("sagemaker")
    for arn in (
        client.describe_endpoint(EndpointName="byoc-dogs")["EndpointArn"],
        client.describe_endpoint_config(EndpointConfigName="byoc-dogs")["EndpointConfigArn"],
        client.describe_model(ModelName="byoc-dogs")["ModelArn"],
    ):
        assert PROJECT in client.list_tags(ResourceArn=arn)["Tags"]
    # The name is taken, also by what an endpoint has left.
    taken = "the endpoint byoc-dogs already exists (InService): change it with --update"
    left = "is left from an endpoint of this name: remove it with scripts/cleanup.py byoc-dogs"
    call(deploy, *CALL).ends(1, taken)
    client.delete_endpoint(EndpointName="byoc-dogs")
    call(deploy, *CALL).ends(1, left)


def test_an_instance_type_that_is_newer_than_boto3(account: Session, monkeypatch: Patch, call: Call) -> None:
    document = loader().load_service_model("sagemaker", "service-2")
    words = [word for word in document["shapes"]["ProductionVariantInstanceType"]["enum"] if word != "ml.c5.xlarge"]
    shapes = {**document["shapes"], "ProductionVariantInstanceType": {"type": "string", "enum": words}}
    older, model = ServiceModel({**document, "shapes": shapes}, "sagemaker"), requests.model
    monkeypatch.setattr(requests, "model", lambda service: older if service == "sagemaker" else model(service))
    for mode in (("--dry-run",), ()):
        call(deploy, *CALL, "--instance-type", "ml.c5.xlarge", *mode).ends(2, "(--allow-unknown sends it all the same)")
        assert call(deploy, *CALL, "--instance-type", "ml.c5.xlarge", *mode, "--allow-unknown").code == 0
    assert configuration(account)["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"


@pytest.mark.usefixtures("account")
def test_json(call: Call) -> None:
    ended = call(deploy, *CALL, "--json", "--no-wait").says("scripts/deploy.py --attach byoc-dogs")
    result = ended.json
    assert result.pop("seconds") >= 0
    assert result == {
        "endpoint": "byoc-dogs", "status": "Creating", "mode": "real-time", "region": REGION,
        "configuration": "byoc-dogs", "model": "byoc-dogs", "image": SERVE_IMAGE, "model_data": MODEL,
        "instance_type": "ml.m5.large", "instance_count": 1, "usd_per_hour": 0.115, "autoscaling": None,
        "previous_configuration": None, "removed": [], "alarms": [],
    }  # fmt: skip


def test_of_a_job(account: Session, call: Call, monkeypatch: Patch) -> None:
    found = create_job(account, "job-1")
    assert call(deploy, "--image", SERVE_IMAGE, "--job", "job-1", "--json").json["model_data"] == MODEL
    assert "there is no training job job-2" in call(deploy, "--image", SERVE_IMAGE, "--job", "job-2").last
    give(monkeypatch, "DescribeTrainingJob", found | {"TrainingJobStatus": "Failed"})
    call(deploy, "--image", SERVE_IMAGE, "--job", "job-1").ends(1, "job-1 is Failed: only a completed one")


# Failures on the way


SERVER_ERROR = error("InternalFailure", "try later", ResponseMetadata={"HTTPStatusCode": 500})


@pytest.mark.parametrize(
    ("operation", "answer", "complaint"),
    [
        ("CreateModel", error("ThrottlingException", "Rate exceeded"), "throttles"),
        ("CreateEndpointConfig", error("AccessDeniedException", "not authorized"), "scripts/iam/scripts.json"),
        ("CreateEndpoint", NO_QUOTA, "Service Quotas"),
        ("CreateEndpointConfig", GONE, "cannot be reached"),
        ("CreateEndpointConfig", KeyboardInterrupt(), "interrupted"),
        # Of these nobody knows whether they are performed yet; model and configuration cost nothing.
        ("CreateEndpoint", GONE, "cannot be reached"),
        ("CreateEndpoint", SERVER_ERROR, "try later (InternalFailure)"),
        ("CreateEndpoint", ResponseParserError("not JSON"), "what answered is not AWS"),
        ("CreateEndpoint", KeyboardInterrupt(), "interrupted"),
    ],
)
def test_half_way_nothing_is_left_but_what_an_endpoint_may_need_yet(
    account: Session, monkeypatch: Patch, call: Call, operation: str, answer: Any, complaint: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    give(monkeypatch, operation, answer)
    ended = call(deploy, *CALL)
    assert (ended.code in (1, 130), complaint in ended.last) == (True, True), ended.err
    if operation != "CreateEndpoint" or answer is NO_QUOTA:
        assert there(account) == NOTHING
    else:
        assert f"remove it: scripts/cleanup.py byoc-dogs --region {REGION}" in ended.last
        assert there(account) == {**DOGS, "endpoints": []}


@pytest.mark.usefixtures("account")
def test_ctrl_c_while_it_takes_back_says_what_is_left(monkeypatch: Patch, call: Call) -> None:
    give(monkeypatch, "CreateEndpoint", NO_QUOTA)
    monkeypatch.setattr("scripts.resources.removal.send", ctrl_c)
    left = "still to remove: configuration byoc-dogs, model byoc-dogs; scripts/cleanup.py --unused does it later"
    call(deploy, *CALL).ends(130, left)


def test_an_endpoint_that_fails_is_explained_and_removed(account: Session, monkeypatch: Patch, call: Call) -> None:
    group, creating = "/aws/sagemaker/Endpoints/byoc-dogs", described("Creating")
    write_log(account, group, "AllTraffic/i-1", "server: model.bin: corrupt")
    failed = described("Failed", FailureReason="The primary container did not pass the ping health check.")
    give(monkeypatch, "DescribeEndpoint", NONE, creating, creating, failed, failed, NONE)
    ended = call(deploy, *CALL)
    ended.ends(1, "is Failed: The primary container did not pass the ping health check.", group)
    assert {"byoc-dogs: Creating, 0:00 min", "  server: model.bin: corrupt"} <= set(ended.err.splitlines())
    assert there(account) == NOTHING


def test_ctrl_c_leaves_it_going_and_says_how_to_come_back(account: Session, monkeypatch: Patch, call: Call) -> None:
    with monkeypatch.context() as interrupted:
        give(interrupted, "DescribeEndpoint", NONE, described("Creating"))
        interrupted.setattr("time.sleep", ctrl_c)
        ended = call(deploy, *CALL)
    ended.ends(
        130, *(f"scripts/{script} byoc-dogs --region {REGION}" for script in ("deploy.py --attach", "cleanup.py"))
    )
    assert there(account) == DOGS
    assert call(deploy, "--attach", "byoc-dogs", "--json").json == {
        "endpoint": "byoc-dogs", "status": "InService", "region": REGION, "configuration": "byoc-dogs",
    }  # fmt: skip


@pytest.mark.usefixtures("account")
def test_a_network_that_stays_down_does_not_hide_what_goes_on(monkeypatch: Patch, call: Call) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(lookup, "ENDPOINT_SECONDS", -1.0)
    give(monkeypatch, "DescribeEndpoint", NONE, described("Creating"), GONE)
    call(deploy, *CALL).ends(1, "cannot be reached", "scripts/deploy.py --attach byoc-dogs")


# The image's label


def test_the_dockerfile_says_what_the_server_reads() -> None:
    text = (Path(__file__).parents[2] / "docker" / "serve.Dockerfile").read_text()
    assert re.findall(r'byoc\.format-version="(\d+)"', text) == [str(FORMAT_VERSION)]
