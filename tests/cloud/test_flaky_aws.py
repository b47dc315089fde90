"""The stand-in for AWS itself: its rules are the service's, and its faults come as often as it was told."""

import os
import subprocess
import sys
import time
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from scripts.aws.account import Aws
from scripts.jobs.training_jobs import is_missing
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.flaky_aws import FlakyAws

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@pytest.fixture
def client(flaky: FlakyAws) -> Any:
    """SageMaker's, which asks once only."""
    return Aws(REGION).session.client("sagemaker", config=ONCE)


def configure(client: Any, name: str) -> None:
    client.create_model(ModelName=name, PrimaryContainer={"Image": "image"}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "a", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def make(client: Any, name: str) -> None:
    configure(client, name)
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)


def statuses(client: Any, count: int) -> list[str]:
    return [client.describe_endpoint(EndpointName="a")["EndpointStatus"] for _ in range(count)]


def refused(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value)


def test_an_endpoint_is_created_updated_and_deleted_in_steps(flaky: FlakyAws, client: Any) -> None:
    flaky.slow(2)
    make(client, "a")
    configure(client, "b")
    assert client.list_endpoints()["Endpoints"][0]["EndpointStatus"] == "Creating"
    assert "Cannot update in-progress endpoint" in refused(client.delete_endpoint, EndpointName="a")
    update = {"EndpointName": "a", "EndpointConfigName": "b"}
    assert "Cannot update in-progress endpoint" in refused(client.update_endpoint, **update)
    assert statuses(client, 3) == ["Creating", "Creating", "InService"]
    assert client.update_endpoint(**update)["EndpointArn"].endswith("endpoint/a")
    found = client.describe_endpoint(EndpointName="a")
    assert (found["EndpointConfigName"], found["EndpointStatus"]) == ("a", "Updating")
    assert found["PendingDeploymentSummary"]["EndpointConfigName"] == "b"
    assert "Cannot update in-progress endpoint" in refused(client.update_endpoint, **update)
    assert statuses(client, 2) == ["Updating", "InService"]
    assert client.describe_endpoint(EndpointName="a")["EndpointConfigName"] == "b"
    client.delete_endpoint(EndpointName="a")
    assert statuses(client, 2) == ["Deleting", "Deleting"]
    with pytest.raises(ClientError) as caught:
        statuses(client, 1)
    assert is_missing(caught.value)


def test_a_failed_update_is_rolled_back(flaky: FlakyAws, client: Any) -> None:
    make(client, "a")
    configure(client, "b")
    flaky.slow(1, failure="no capacity")
    client.update_endpoint(EndpointName="a", EndpointConfigName="b")
    assert statuses(client, 3) == ["Updating", "RollingBack", "InService"]
    found = client.describe_endpoint(EndpointName="a")
    assert (found["EndpointConfigName"], found["FailureReason"]) == ("a", "no capacity")


@pytest.mark.parametrize("updated", [False, True])
def test_a_configuration_that_goes_meanwhile_breaks_the_endpoint(flaky: FlakyAws, client: Any, updated: bool) -> None:
    flaky.slow(1)
    make(client, "a")
    configure(client, "b")
    if updated:
        statuses(client, 2)
        client.update_endpoint(EndpointName="a", EndpointConfigName="b")
    client.delete_endpoint_config(EndpointConfigName="b" if updated else "a")
    assert statuses(client, 2)[-1] == "Failed"


def test_what_is_refused(flaky: FlakyAws, client: Any) -> None:
    make(client, "a")
    existing = 'Cannot create already existing {} "a"'
    assert existing.format("model") in refused(configure, client=client, name="a")
    client.delete_model(ModelName="a")
    assert existing.format("endpoint configuration") in refused(configure, client=client, name="a")
    assert existing.format("endpoint") in refused(client.create_endpoint, EndpointName="a", EndpointConfigName="a")
    for update in (
        {"EndpointName": "none", "EndpointConfigName": "a"},
        {"EndpointName": "a", "EndpointConfigName": "b"},
    ):
        assert "Could not find" in refused(client.update_endpoint, **update)
    job = training_job("job")
    client.create_training_job(**job)
    assert "(ResourceInUse)" in refused(client.create_training_job, **job)
    assert "in status Completed" in refused(client.stop_training_job, TrainingJobName="job")


def training_job(name: str) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/byoc"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }


def test_a_job_runs_fails_and_is_stopped(flaky: FlakyAws, client: Any) -> None:
    def looked_at(name: str, count: int) -> list[str]:
        found = [client.describe_training_job(TrainingJobName=name) for _ in range(count)]
        return [one["TrainingJobStatus"] for one in found]

    flaky.slow(1)
    client.create_training_job(**training_job("a"))
    client.create_training_job(**training_job("b"))
    assert looked_at("a", 2) == ["InProgress", "Completed"]
    client.stop_training_job(TrainingJobName="b")
    assert looked_at("b", 2) == ["Stopping", "Stopped"]
    flaky.slow(1, failure="AlgorithmError: no")
    client.create_training_job(**training_job("c"))
    assert looked_at("c", 2) == ["InProgress", "Failed"]
    assert client.describe_training_job(TrainingJobName="c")["FailureReason"] == "AlgorithmError: no"


def test_a_broken_connection_before_and_after_the_request_is_performed(flaky: FlakyAws, client: Any) -> None:
    for tell, made in ((flaky.break_before, 0), (flaky.break_after, 1)):
        tell("CreateTrainingJob")
        with pytest.raises(ConnectionClosedError):
            client.create_training_job(**training_job("a"))
        assert len(client.list_training_jobs()["TrainingJobSummaries"]) == made
    assert flaky.calls.count("CreateTrainingJob") == 2


def test_a_failure_that_is_none(flaky: FlakyAws, client: Any) -> None:
    flaky.fail_after("CreateTrainingJob")
    assert "(InternalFailure)" in refused(client.create_training_job, **training_job("a"))
    assert len(client.list_training_jobs()["TrainingJobSummaries"]) == 1


@pytest.mark.parametrize("tell", ["hang", "delay"])
def test_a_request_that_hangs_is_performed_at_once_or_later(flaky: FlakyAws, tell: str) -> None:
    client = Aws(REGION).session.client("sagemaker", config=ONCE.merge(Config(read_timeout=2)))
    getattr(flaky, tell)("CreateTrainingJob")
    with pytest.raises(ReadTimeoutError):
        client.create_training_job(**training_job("a"))
    made = client.list_training_jobs()["TrainingJobSummaries"]
    assert len(made) == (tell == "hang")
    flaky.catch_up()
    deadline = time.monotonic() + 20
    while not client.list_training_jobs()["TrainingJobSummaries"]:
        assert time.monotonic() < deadline


def test_an_update_keeps_or_resets_the_number_of_instances(flaky: FlakyAws, client: Any) -> None:
    make(client, "a")
    configure(client, "b")
    scaled = [{"VariantName": "a", "DesiredInstanceCount": 4}]
    client.update_endpoint_weights_and_capacities(EndpointName="a", DesiredWeightsAndCapacities=scaled)
    for retain, count in ((True, 4), (False, 1)):
        statuses(client, 1)
        client.update_endpoint(EndpointName="a", EndpointConfigName="b", RetainAllVariantProperties=retain)
        (variant,) = client.describe_endpoint(EndpointName="a")["ProductionVariants"]
        assert variant["DesiredInstanceCount"] == count


@pytest.mark.parametrize(("service", "operation", "code"), [
    ("sagemaker", "ListModels", "ThrottlingException"),
    ("s3", "ListObjectsV2", "SlowDown"),
    ("s3", "HeadObject", "503"),
])  # fmt: skip
def test_throttling(flaky: FlakyAws, service: str, operation: str, code: str) -> None:
    flaky.throttle(operation, times=2)
    client = Aws(REGION).session.client(service, config=ONCE)
    request = {"ListObjectsV2": {"Bucket": BUCKET}, "HeadObject": {"Bucket": BUCKET, "Key": "none"}}.get(operation, {})
    call = getattr(client, botocore.xform_name(operation))
    assert f"({code})" in refused(call, **request)
    assert f"({code})" in refused(call, **request)
    if operation == "HeadObject":
        assert "(404)" in refused(call, **request)
    else:
        call(**request)


def test_a_process_of_its_own_meets_the_same(flaky: FlakyAws, aws: boto3.Session) -> None:
    program = "import boto3; print(boto3.client('s3').list_objects_v2(Bucket='" + BUCKET + "')['KeyCount'])"
    flaky.throttle("ListObjectsV2")
    flaky.calls.clear()
    environment = {**os.environ, "AWS_DEFAULT_REGION": REGION}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert flaky.calls == ["ListObjectsV2"] * 2


def test_the_operations_of_s3_are_recognised(flaky: FlakyAws, aws: boto3.Session) -> None:
    s3 = aws.client("s3")
    flaky.calls.clear()
    s3.put_object(Bucket=BUCKET, Key="a/b", Body=b"1")
    s3.head_object(Bucket=BUCKET, Key="a/b")
    s3.get_object(Bucket=BUCKET, Key="a/b")
    upload = {"Bucket": BUCKET, "Key": "c", "UploadId": s3.create_multipart_upload(Bucket=BUCKET, Key="c")["UploadId"]}
    tag = s3.upload_part(**upload, PartNumber=1, Body=b"1")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    s3.list_objects_v2(Bucket=BUCKET)
    s3.get_bucket_location(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "c"}]})
    s3.delete_object(Bucket=BUCKET, Key="a/b")
    assert flaky.calls == [
        "PutObject", "HeadObject", "GetObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
        "ListObjectsV2", "GetBucketLocation", "HeadBucket", "DeleteObjects", "DeleteObject",
    ]  # fmt: skip
    aws.client("sts").get_caller_identity()
    assert flaky.calls[-1] == "GetCallerIdentity"
