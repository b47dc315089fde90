"""deploy.py's modes: their requests, what they cannot be combined with, their life on moto, what they cost."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

from container_serve.settings import Settings as ServerSettings
from scripts import cleanup, deploy, predict
from scripts.aws import instances, roles
from scripts.aws.settings import Settings
from scripts.console.command import run
from scripts.endpoints import lookup, modes
from scripts.images import registry
from tests import documents
from tests.cloud import models
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_deploy import BUCKET, CALL, IMAGE, LABELS, MODEL, OFFLINE, PROJECT, last_line
from tests.cloud.test_deploy import KEY as KEY

ONE = (*OFFLINE, "--model-data", MODEL, "--name", "byoc-dogs")
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:byoc-answers"
ANSWERS = f"s3://{BUCKET}/byoc/answers"
MANY = f"s3://{BUCKET}/byoc/models"
VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/byoc-dogs/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


def call(*arguments: str) -> int:
    return run("deploy.py", deploy.main, arguments)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)


@pytest.fixture
def account(aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """An account with an image and a model."""
    monkeypatch.setattr(registry, "find", lambda aws, image: "sha256:" + "0" * 64)
    monkeypatch.setattr(registry, "image_labels", lambda aws, image: dict(LABELS))
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path))
    return aws


def requests(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The requests of a dry run by their operations; of two with the same one, the last."""
    assert call(*arguments, "--dry-run") == 0
    return {one["operation"]: one["request"] for one in json.loads(capsys.readouterr().out)}


# Requests


def test_a_serverless_endpoint_has_no_instances(capsys: pytest.CaptureFixture[str]) -> None:
    found = requests(capsys, *ONE, "--serverless", "2048", "--max-concurrency", "20", "--provisioned", "3")
    assert found["CreateEndpointConfig"]["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "ModelName": "byoc-dogs",
            "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 20, "ProvisionedConcurrency": 3},
        }
    ]
    assert found["CreateModel"]["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": MODEL}
    assert requests(capsys, *ONE, "--serverless", "1024", "--volume-kms-key", "1234abcd")["CreateEndpointConfig"] == {
        "EndpointConfigName": "byoc-dogs",
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "ModelName": "byoc-dogs",
                "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5},
            }
        ],
        "Tags": [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}],
    }


def test_an_asynchronous_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--async", ANSWERS, "--success-topic", TOPIC, "--error-topic", f"{TOPIC}-failed")
    found = requests(capsys, *ONE, *flags, "--max-concurrency", "4", "--output-kms-key", "1234abcd")
    assert found["CreateEndpointConfig"]["AsyncInferenceConfig"] == {
        "OutputConfig": {
            "S3OutputPath": ANSWERS,
            "S3FailurePath": f"{ANSWERS}/failures",
            "KmsKeyId": "1234abcd",
            "NotificationConfig": {"SuccessTopic": TOPIC, "ErrorTopic": f"{TOPIC}-failed"},
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
    }
    environment = found["CreateModel"]["PrimaryContainer"]["Environment"]
    server = ServerSettings.read(environment)
    assert (server.timeout, server.max_request_bytes) == (3595, 2**30)
    # What the user says counts.
    own = requests(capsys, *ONE, *flags, "--environment", "SAGEMAKER_MODEL_SERVER_TIMEOUT=60")
    assert own["CreateModel"]["PrimaryContainer"]["Environment"]["SAGEMAKER_MODEL_SERVER_TIMEOUT"] == "60"


@pytest.mark.parametrize(
    ("kind", "gib"),
    [("ml.m5.large", 8), ("ml.c5.large", 4), ("ml.c6i.4xlarge", 32), ("ml.r5.xlarge", 32), ("ml.g4dn.xlarge", 4)],
)
def test_the_largest_request_fits_into_the_instance(kind: str, gib: int) -> None:
    assert modes.memory_gib(kind) == gib
    assert modes.request_bytes(kind) <= min(2**30, gib * 2**30 / 6)


def test_several_models_at_one_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    found = requests(capsys, *OFFLINE, "--multi-model", f"{MANY}/", "--name", "byoc-many")
    assert found["CreateModel"]["PrimaryContainer"] == {
        "Image": IMAGE,
        "ModelDataUrl": f"{MANY}/",
        "Mode": "MultiModel",
        "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
    }


def test_autoscaling_of_a_real_time_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    found = requests(capsys, *ONE, "--min-instances", "2", "--max-instances", "6", "--target", "900")
    assert found["RegisterScalableTarget"] == {**VARIANT, "MinCapacity": 2, "MaxCapacity": 6}
    assert found["PutScalingPolicy"] == {
        **VARIANT,
        "PolicyName": "byoc-target",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 900.0,
            "ScaleOutCooldown": 300,
            "ScaleInCooldown": 600,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    }
    assert "PutMetricAlarm" not in found


def test_an_asynchronous_endpoint_scales_from_and_to_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*ONE, "--async", ANSWERS, "--max-instances", "3", "--dry-run") == 0
    _, _, _, target, tracking, step, alarm = json.loads(capsys.readouterr().out)
    assert (target["request"]["MinCapacity"], target["request"]["MaxCapacity"]) == (0, 3)
    metric = tracking["request"]["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert step["request"]["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}
    ]
    assert alarm["operation"] == "PutMetricAlarm"
    assert alarm["request"]["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["request"]["Tags"] == [PROJECT]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--serverless 2048 --subnets subnet-1 --security-groups sg-1", "--subnets: the service has no VPC there"),
        ("--serverless 2048 --network-isolation", "--network-isolation: the service has no network isolation"),
        ("--serverless 2048 --instance-type ml.m5.large", "--instance-type: it has no instances"),
        ("--serverless 2048 --instance-count 2", "--instance-count: it has no instances"),
        ("--serverless 2048 --async s3://b-b/a", "--async: an endpoint has one mode"),
        ("--serverless 2048 --multi-model s3://b-b/a", "--multi-model: an endpoint has one mode"),
        ("--serverless 2048 --max-instances 2", "--max-instances: it scales by itself"),
        ("--serverless 2048 --startup-timeout 300", "--startup-timeout: the service always gives it 180 s"),
        ("--serverless 2048 --update --strategy rolling", "--strategy rolling: it has no instances"),
        ("--serverless 2000", "invalid choice: 2000"),
        ("--serverless 2048 --max-concurrency 201", "MaxConcurrency has value 201: expected at most 200"),
        ("--serverless 2048 --provisioned 6", "--provisioned 6 is more than --max-concurrency 5"),
        ("--provisioned 2", "--provisioned goes with --serverless"),
        ("--max-concurrency 2", "--max-concurrency goes with --serverless or --async"),
        ("--success-topic arn:aws:sns:x", "--success-topic goes with --async"),
        ("--async answers", "--async has value 'answers': expected s3://"),
        (f"--async s3://b-b/a --success-topic {TOPIC[4:]}", "NotificationConfig.SuccessTopic has value"),
        ("--multi-model s3://b-b/a", "--multi-model cannot be combined with --model-data: its models are below"),
        ("--add dogs x.tar.gz --name byoc-x", "leave out --name"),
        ("--min-instances 1", "--min-instances, --target and --schedule go with --max-instances"),
        ("--min-instances 0 --max-instances 2", "only an endpoint with --async scales to zero"),
        ("--min-instances 3 --max-instances 2", "--min-instances 3 is more than --max-instances 2"),
        ("--instance-count 3 --max-instances 2", "--instance-count 3 is more than --max-instances 2"),
        ("--max-instances 2 --no-wait", "cannot be combined with --no-wait"),
        ("--local --serverless 2048", "--local serves one model here"),
    ],
)
def test_what_cannot_be_combined_is_one_line(flags: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*ONE, *flags.split(), *(() if "--local" in flags else ("--dry-run",)))
    assert code_of(*arguments) == 2
    assert complaint in last_line(capsys)


def code_of(*arguments: str) -> object:
    """The exit code; argparse ends the program by itself."""
    try:
        return call(*arguments)
    except SystemExit as error:
        return error.code


def test_add_and_remove_need_the_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (("--add", "dogs", "x.tar.gz"), ("--remove", "dogs")):
        assert call("--region", REGION, *flags, "--dry-run") == 2
        assert f"{flags[0]} goes with --multi-model" in last_line(capsys)


# Life


def configuration(session: boto3.Session) -> Any:
    client = session.client("sagemaker")
    name = client.describe_endpoint(EndpointName="byoc-dogs")["EndpointConfigName"]
    return client.describe_endpoint_config(EndpointConfigName=name)


def test_a_serverless_endpoint_from_its_making_to_its_end(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*CALL, "--serverless", "2048", "--json") == 0
    captured = capsys.readouterr()
    assert "serverless with 2048 MB: about 0.00004 USD per second of computing, nothing when idle" in captured.err
    result = json.loads(captured.out)
    assert (result["mode"], result["instance_type"], result["usd_per_hour"]) == ("serverless", None, None)
    assert "InstanceType" not in configuration(account)["ProductionVariants"][0]
    assert call(*CALL, "--serverless", "4096", "--update", "--prune") == 0
    assert configuration(account)["ProductionVariants"][0]["ServerlessConfig"]["MemorySizeInMB"] == 4096
    # The service turns it into one with instances, never back.
    assert call(*CALL, "--update") == 2
    assert "byoc-dogs runs on serverless: say with --instance-type" in last_line(capsys)
    assert run("cleanup.py", cleanup.main, []) == 0
    assert "serverless" in capsys.readouterr().out
    assert call(*CALL, "--update", "--instance-type", "ml.m5.large") == 0
    assert call(*CALL, "--update", "--serverless", "2048") == 1
    assert "the service cannot make serverless: give another --name" in last_line(capsys)
    assert run("cleanup.py", cleanup.main, ["byoc-dogs", "--yes"]) == 0
    assert account.client("sagemaker").list_endpoint_configs()["EndpointConfigs"] == []


@pytest.mark.parametrize(("mode", "scaled"), [(("--serverless", "2048"), True), ((), False)])
def test_an_image_over_the_serverless_limit_is_scaled_down(
    account: boto3.Session, flaky: FlakyAws, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: tuple[str, ...],
    scaled: bool,
) -> None:  # fmt: skip
    assert call(*CALL, *mode) == 0
    image = tmp_path / "large.bmp"
    Image.new("RGB", (1400, 1000)).save(image)
    assert modes.SERVERLESS_REQUEST_BYTES < image.stat().st_size < 6_291_456
    flaky.prediction = {"predictions": [{"index": 0, "label": "dog", "probability": 0.9}], "model": {}}
    assert run("predict.py", predict.main, ["byoc-dogs", str(image)]) == 0
    assert ("over 4,000,000: sent as JPEG" in capsys.readouterr().err) == scaled


def test_an_asynchronous_endpoint_with_autoscaling_from_its_making_to_its_end(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    scaling, watch = account.client("application-autoscaling"), account.client("cloudwatch")
    assert call(*CALL, "--async", ANSWERS, "--max-instances", "3") == 0
    assert "autoscaling from 0 to 3 instances" in capsys.readouterr().err
    (alarm,) = watch.describe_alarms(AlarmNames=["byoc-dogs-has-backlog"])["MetricAlarms"]
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    (step,) = [one for one in policies if one["PolicyType"] == "StepScaling"]
    assert alarm["AlarmActions"] == [step["PolicyARN"]]
    assert call(*CALL, "--update") == 1
    assert "byoc-dogs is asynchronous: an update cannot make it real-time" in last_line(capsys)
    assert call(*CALL, "--async", ANSWERS, "--update") == 0
    assert configuration(account)["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == ANSWERS
    assert len(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]) == 1
    assert run("cleanup.py", cleanup.main, ["byoc-dogs", "--yes"]) == 0
    assert "deleted the autoscaling of byoc-dogs" in capsys.readouterr().err
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    assert watch.describe_alarms(AlarmNames=["byoc-dogs-has-backlog"])["MetricAlarms"] == []


def test_autoscaling_stays_over_an_update_to_another_instance_type(
    account: boto3.Session, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service refuses such an update while there is autoscaling."""
    client = account.client("application-autoscaling")

    def targets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return found

    assert call(*CALL, "--max-instances", "4") == 0
    during: list[int] = []
    flaky.before["UpdateEndpoint"] = lambda: during.append(len(targets()))
    assert call(*CALL, "--update", "--instance-type", "ml.c5.xlarge") == 0
    assert during == [0]
    assert "autoscaling from 1 to 4 instances" in capsys.readouterr().err
    (target,) = targets()
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    (policy,) = client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 2000.0
    # Also where the update fails.
    flaky.slow(1, "no capacity")
    assert call(*CALL, "--update", "--instance-type", "ml.m5.large") == 1
    assert len(targets()) == 1


def test_attach_registers_what_an_interrupted_call_did_not(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*CALL) == 0
    assert call("--attach", "byoc-dogs", "--max-instances", "2") == 0
    assert "autoscaling from 1 to 2 instances" in capsys.readouterr().err
    assert call("--attach", "byoc-dogs", "--max-instances", "2", "--project", "birds") == 1
    assert "these scripts did not make it" in last_line(capsys)


def test_autoscaling_that_is_refused_leaves_the_endpoint_and_says_how_to_go_on(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "PutScalingPolicy", error("AccessDeniedException", "not authorized"), PASS)
    assert call(*CALL, "--max-instances", "2") == 1
    line = last_line(capsys)
    assert "scripts/iam/scripts.json" in line
    assert "--attach NAME --max-instances N registers it" in line
    assert call("--attach", "byoc-dogs", "--max-instances", "2") == 0


def test_the_role_may_tell_the_topics_of_its_project() -> None:
    document = roles.policy("role", Settings(region=REGION, project="birds"), "aws", ACCOUNT)
    (statement,) = [one for one in document["Statement"] if one["Action"] == ["sns:Publish"]]
    assert statement["Resource"] == f"arn:aws:sns:{REGION}:{ACCOUNT}:birds*"


# Models below a prefix


def test_models_are_added_asked_for_and_removed(
    account: boto3.Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = account.client("s3")
    prefix = ("--multi-model", MANY)
    assert call(*prefix, "--add", "dogs", MODEL) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{MANY}/dogs.tar.gz\n"
    assert "scripts/predict.py ENDPOINT IMAGE --model dogs" in captured.err
    (tmp_path / "birds.tar.gz").write_bytes(models.archive(tmp_path / "birds"))
    assert call(*prefix, "--image", IMAGE, "--add", "birds", str(tmp_path / "birds.tar.gz")) == 0
    assert call(*prefix, "--add", "dogs", MODEL) == 1
    assert "already exists, and an endpoint that has loaded it would go on with the old one" in last_line(capsys)
    (tmp_path / "broken.tar.gz").write_bytes(models.archive(tmp_path / "broken", "flipped"))
    assert call(*prefix, "--add", "broken", str(tmp_path / "broken.tar.gz")) == 1
    assert "model.bin: corrupt" in last_line(capsys)
    assert call(*OFFLINE, *prefix, "--name", "byoc-many") == 0
    assert f"2 models below {MANY}: birds, dogs" in capsys.readouterr().err
    # What an endpoint reads stays.
    assert run("cleanup.py", cleanup.main, ["--data", "--yes"]) == 0
    assert "which the model byoc-many uses" in capsys.readouterr().err
    assert call(*prefix, "--remove", "cats") == 1
    assert "below the prefix there are: birds, dogs" in last_line(capsys)
    assert call(*prefix, "--remove", "dogs") == 0
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="byoc/models/")["Contents"]]
    assert keys == ["byoc/models/birds.tar.gz"]
    assert run("cleanup.py", cleanup.main, ["byoc-many", "--yes"]) == 0
    assert run("cleanup.py", cleanup.main, ["--data", "--yes"]) == 0
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="byoc/models/")


def test_requests_that_add_and_remove(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    offline = ("--region", REGION, "--multi-model", MANY)
    assert requests(capsys, *offline, "--add", "dogs", MODEL) == {
        "CopyObject": {
            "Bucket": BUCKET,
            "Key": "byoc/models/dogs.tar.gz",
            "ExpectedBucketOwner": ACCOUNT,
            "CopySource": f"{BUCKET}/{KEY}",
            "Metadata": {"byoc-project": "byoc"},
            "MetadataDirective": "REPLACE",
        }
    }
    assert requests(capsys, *offline, "--remove", "dogs") == {
        "DeleteObject": {"Bucket": BUCKET, "Key": "byoc/models/dogs.tar.gz", "ExpectedBucketOwner": ACCOUNT}
    }
    for name in ("dogs.tar.gz", "a/b", ".a", "x" * 201, ""):
        assert call(*offline, "--add", name, MODEL, "--dry-run") == 2
        assert "letters, digits, dots" in last_line(capsys)
    assert call(*offline, "--add", "dogs", str(tmp_path), "--dry-run") == 2
    assert f"--add {tmp_path} is a folder" in last_line(capsys)


# Documentation


def test_the_table_of_costs_is_that_of_the_code() -> None:
    """Requests a day, serverless with 2048 MB at the measured milliseconds, ml.m5.large; in USD a day."""
    rows = documents.rows(documents.ROOT / "docs" / "deployment.md", "What serverless costs")
    for requests_a_day, serverless, instance in rows:
        number = int(requests_a_day.replace(",", ""))
        usd = number * modes.REQUEST_SECONDS * 2 * modes.SERVERLESS_GB_SECOND
        assert serverless == f"{usd:.3f}"
        assert instance == f"{instances.PRICES['ml.m5.large'] * 24:.2f}"
