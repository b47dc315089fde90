"""deploy.py's modes: their requests, what they cannot be combined with, their life on moto, what they cost."""

from pathlib import Path
from typing import Any

import pytest
from boto3 import Session
from PIL import Image

from container_serve.settings import Settings as ServerSettings
from scripts import cleanup, deploy, predict
from scripts.aws import instances, roles
from scripts.aws.settings import Settings
from scripts.endpoints import modes
from tests import documents
from tests.cloud import models
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, BUCKET, CALL, KEY, MODEL, OFFLINE, PROJECT, REGION, SERVE_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import configuration, keys
from tests.conftest import Patch

ONE = (*OFFLINE, "--model-data", MODEL, "--name", "byoc-dogs")
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:byoc-answers"
ANSWERS = f"s3://{BUCKET}/byoc/answers"
MANY = f"s3://{BUCKET}/byoc/models"
VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/byoc-dogs/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


def requests(call: Call, *arguments: str) -> dict[str, Any]:
    """The requests of a dry run by their operations; of two with the same one, the last."""
    return {one["operation"]: one["request"] for one in call(deploy, *arguments, "--dry-run").json}


# Requests


def test_a_serverless_endpoint_has_no_instances(call: Call) -> None:
    found = requests(call, *ONE, "--serverless", "2048", "--max-concurrency", "20", "--provisioned", "3")
    (variant,) = found["CreateEndpointConfig"]["ProductionVariants"]
    full = {"MemorySizeInMB": 2048, "MaxConcurrency": 20, "ProvisionedConcurrency": 3}
    assert variant == {"VariantName": "AllTraffic", "ModelName": "byoc-dogs", "ServerlessConfig": full}
    assert found["CreateModel"]["PrimaryContainer"] == {"Image": SERVE_IMAGE, "ModelDataUrl": MODEL}
    assert requests(call, *ONE, "--serverless", "1024", "--volume-kms-key", "1234abcd")["CreateEndpointConfig"] == {
        "EndpointConfigName": "byoc-dogs",
        "ProductionVariants": [{**variant, "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5}}],
        "Tags": [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}],
    }


def test_an_asynchronous_endpoint(call: Call) -> None:
    flags = ("--async", ANSWERS, "--success-topic", TOPIC, "--error-topic", f"{TOPIC}-failed")
    found = requests(call, *ONE, *flags, "--max-concurrency", "4", "--output-kms-key", "1234abcd")
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
    own = requests(call, *ONE, *flags, "--environment", "SAGEMAKER_MODEL_SERVER_TIMEOUT=60")
    assert own["CreateModel"]["PrimaryContainer"]["Environment"]["SAGEMAKER_MODEL_SERVER_TIMEOUT"] == "60"


@pytest.mark.parametrize(
    ("kind", "gib"),
    [("ml.m5.large", 8), ("ml.c5.large", 4), ("ml.c6i.4xlarge", 32), ("ml.r5.xlarge", 32), ("ml.g4dn.xlarge", 4)],
)
def test_the_largest_request_fits_into_the_instance(kind: str, gib: int) -> None:
    assert modes.memory_gib(kind) == gib
    assert modes.request_bytes(kind) <= min(2**30, gib * 2**30 / 6)


def test_several_models_at_one_endpoint(call: Call) -> None:
    found = requests(call, *OFFLINE, "--multi-model", f"{MANY}/", "--name", "byoc-many")
    assert found["CreateModel"]["PrimaryContainer"] == {
        "Image": SERVE_IMAGE,
        "ModelDataUrl": f"{MANY}/",
        "Mode": "MultiModel",
        "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
    }


def test_autoscaling_of_a_real_time_endpoint(call: Call) -> None:
    found = requests(call, *ONE, "--min-instances", "2", "--max-instances", "6", "--target", "900")
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


def test_an_asynchronous_endpoint_scales_from_and_to_zero(call: Call) -> None:
    shown = call(deploy, *ONE, "--async", ANSWERS, "--max-instances", "3", "--dry-run").json
    _, _, _, target, tracking, step, alarm = shown
    assert (target["request"]["MinCapacity"], target["request"]["MaxCapacity"]) == (0, 3)
    metric = tracking["request"]["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert step["request"]["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}
    ]
    assert alarm["operation"] == "PutMetricAlarm"
    assert alarm["request"]["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["request"]["Tags"] == [PROJECT]


# Life


def test_a_serverless_endpoint_from_its_making_to_its_end(account: Session, call: Call) -> None:
    ended = call(deploy, *CALL, "--serverless", "2048", "--json")
    ended.says("serverless with 2048 MB: about 0.00004 USD per second of computing, nothing when idle")
    result = ended.json
    assert (result["mode"], result["instance_type"], result["usd_per_hour"]) == ("serverless", None, None)
    assert "InstanceType" not in configuration(account)["ProductionVariants"][0]
    assert call(deploy, *CALL, "--serverless", "4096", "--update", "--prune").code == 0
    assert configuration(account)["ProductionVariants"][0]["ServerlessConfig"]["MemorySizeInMB"] == 4096
    # The service turns it into one with instances, never back.
    call(deploy, *CALL, "--update").ends(2, "byoc-dogs runs on serverless: say with --instance-type")
    assert "serverless" in call(cleanup).out
    assert call(deploy, *CALL, "--update", "--instance-type", "ml.m5.large").code == 0
    ended = call(deploy, *CALL, "--update", "--serverless", "2048")
    ended.ends(1, "the service cannot make serverless: give another --name")
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert account.client("sagemaker").list_endpoint_configs()["EndpointConfigs"] == []


@pytest.mark.parametrize(("mode", "scaled"), [(("--serverless", "2048"), True), ((), False)])
def test_an_image_over_the_serverless_limit_is_scaled_down(
    account: Session, flaky: FlakyAws, tmp_path: Path, call: Call, mode: tuple[str, ...], scaled: bool
) -> None:
    assert call(deploy, *CALL, *mode).code == 0
    image = tmp_path / "large.bmp"
    Image.new("RGB", (1400, 1000)).save(image)
    assert modes.SERVERLESS_REQUEST_BYTES < image.stat().st_size < 6_291_456
    flaky.prediction = {"predictions": [{"index": 0, "label": "dog", "probability": 0.9}], "model": {}}
    assert ("over 4,000,000: sent as JPEG" in call(predict, "byoc-dogs", str(image)).err) == scaled


def test_an_asynchronous_endpoint_with_autoscaling_from_its_making_to_its_end(account: Session, call: Call) -> None:
    scaling, watch = account.client("application-autoscaling"), account.client("cloudwatch")
    assert "autoscaling from 0 to 3 instances" in call(deploy, *CALL, "--async", ANSWERS, "--max-instances", "3").err
    (alarm,) = watch.describe_alarms(AlarmNames=["byoc-dogs-has-backlog"])["MetricAlarms"]
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    (step,) = [one for one in policies if one["PolicyType"] == "StepScaling"]
    assert alarm["AlarmActions"] == [step["PolicyARN"]]
    call(deploy, *CALL, "--update").ends(1, "byoc-dogs is asynchronous: an update cannot make it real-time")
    assert call(deploy, *CALL, "--async", ANSWERS, "--update").code == 0
    assert configuration(account)["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == ANSWERS
    assert len(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]) == 1
    assert "deleted the autoscaling of byoc-dogs" in call(cleanup, "byoc-dogs", "--yes").err
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    assert watch.describe_alarms(AlarmNames=["byoc-dogs-has-backlog"])["MetricAlarms"] == []


def test_autoscaling_stays_over_an_update_to_another_instance_type(
    account: Session, flaky: FlakyAws, call: Call
) -> None:
    """The service refuses such an update while there is autoscaling."""
    client = account.client("application-autoscaling")

    def targets() -> Any:
        return client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]

    assert call(deploy, *CALL, "--max-instances", "4").code == 0
    during: list[int] = []
    flaky.before["UpdateEndpoint"] = lambda: during.append(len(targets()))
    assert "autoscaling from 1 to 4 instances" in call(deploy, *CALL, "--update", "--instance-type", "ml.c5.xlarge").err
    assert during == [0]
    (target,) = targets()
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    (policy,) = client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 2000.0
    # Also where the update fails.
    flaky.slow(1, "no capacity")
    assert call(deploy, *CALL, "--update", "--instance-type", "ml.m5.large").code == 1
    assert len(targets()) == 1


def test_autoscaling_that_is_refused_leaves_the_endpoint_and_attach_registers_it(
    account: Session, monkeypatch: Patch, call: Call
) -> None:
    give(monkeypatch, "PutScalingPolicy", error("AccessDeniedException", "not authorized"), PASS)
    ended = call(deploy, *CALL, "--max-instances", "2")
    ended.ends(1, "scripts/iam/scripts.json", "--attach NAME --max-instances N registers it")
    attach = ("--attach", "byoc-dogs", "--max-instances", "2")
    call(deploy, *attach, "--project", "birds").ends(1, "these scripts did not make it")
    call(deploy, *attach).says("autoscaling from 1 to 2 instances")


def test_the_role_may_tell_the_topics_of_its_project() -> None:
    document = roles.policy("role", Settings(region=REGION, project="birds"), "aws", ACCOUNT)
    (statement,) = [one for one in document["Statement"] if one["Action"] == ["sns:Publish"]]
    assert statement["Resource"] == f"arn:aws:sns:{REGION}:{ACCOUNT}:birds*"


# Models below a prefix


def test_models_are_added_asked_for_and_removed(account: Session, tmp_path: Path, call: Call) -> None:
    prefix = ("--multi-model", MANY)
    ended = call(deploy, *prefix, "--add", "dogs", MODEL).says("scripts/predict.py ENDPOINT IMAGE --model dogs")
    assert ended.out == f"{MANY}/dogs.tar.gz\n"
    (tmp_path / "birds.tar.gz").write_bytes(models.archive(tmp_path / "birds"))
    assert call(deploy, *prefix, "--image", SERVE_IMAGE, "--add", "birds", str(tmp_path / "birds.tar.gz")).code == 0
    ended = call(deploy, *prefix, "--add", "dogs", MODEL)
    ended.ends(1, "already exists: give another NAME, or --remove dogs first")
    (tmp_path / "broken.tar.gz").write_bytes(models.archive(tmp_path / "broken", "flipped"))
    call(deploy, *prefix, "--add", "broken", str(tmp_path / "broken.tar.gz")).ends(1, "model.bin: corrupt")
    assert f"2 models below {MANY}: birds, dogs" in call(deploy, *OFFLINE, *prefix, "--name", "byoc-many").err
    # What an endpoint reads stays.
    assert "which the model byoc-many uses" in call(cleanup, "--data", "--yes").err
    call(deploy, *prefix, "--remove", "cats").ends(1, "below the prefix there are: birds, dogs")
    assert call(deploy, *prefix, "--remove", "dogs").code == 0
    assert keys(account, "byoc/models/") == ["byoc/models/birds.tar.gz"]
    assert call(cleanup, "byoc-many", "--yes").code == 0
    assert call(cleanup, "--data", "--yes").code == 0
    assert keys(account, "byoc/models/") == []


def test_requests_that_add_and_remove(call: Call, tmp_path: Path) -> None:
    offline = ("--region", REGION, "--multi-model", MANY)
    assert requests(call, *offline, "--add", "dogs", MODEL) == {
        "CopyObject": {
            "Bucket": BUCKET,
            "Key": "byoc/models/dogs.tar.gz",
            "ExpectedBucketOwner": ACCOUNT,
            "CopySource": f"{BUCKET}/{KEY}",
            "Metadata": {"byoc-project": "byoc"},
            "MetadataDirective": "REPLACE",
        }
    }
    assert requests(call, *offline, "--remove", "dogs") == {
        "DeleteObject": {"Bucket": BUCKET, "Key": "byoc/models/dogs.tar.gz", "ExpectedBucketOwner": ACCOUNT}
    }
    for name in ("dogs.tar.gz", "a/b", ".a", "x" * 201):
        call(deploy, *offline, "--add", name, MODEL, "--dry-run").ends(2, "letters, digits, dots")
    call(deploy, *offline, "--add", "dogs", str(tmp_path), "--dry-run").ends(2, f"--add {tmp_path} is a folder")
    (tmp_path / "text").write_text("no model")
    for image in ((), ("--image", SERVE_IMAGE)):
        ended = call(deploy, *offline, *image, "--add", "dogs", str(tmp_path / "text"), "--dry-run")
        assert ended.ends(1, "text is damaged, or not a .tar.gz archive").out == ""


# Documentation


def test_the_table_of_costs_is_that_of_the_code() -> None:
    """Requests a day, serverless with 2048 MB at the measured milliseconds, ml.m5.large; in USD a day."""
    rows = documents.rows(documents.ROOT / "docs" / "deployment.md", "What serverless costs")
    for requests_a_day, serverless, instance in rows:
        number = int(requests_a_day.replace(",", ""))
        usd = number * modes.REQUEST_SECONDS * 2 * modes.SERVERLESS_GB_SECOND
        assert serverless == f"{usd:.3f}"
        assert instance == f"{instances.PRICES['ml.m5.large'] * 24:.2f}"
