"""train.py: instances that are kept for the next job, and other types where the service has none of the first."""

from typing import Any

import pytest
from boto3 import Session

from scripts import cleanup, train
from scripts.resources import usage
from tests.cloud.answers import PASS, give
from tests.cloud.conftest import ACCOUNT, BUCKET, REGION, ROLE, TRAIN_IMAGE, Call
from tests.cloud.resources import put_data
from tests.cloud.test_train import BASE, DATA
from tests.conftest import Patch

NAME = "byoc-job-1"
TYPES = ("--instance-type", "ml.g5.xlarge,ml.m5.large")
CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)


def described(name: str = NAME, *, status: str = "Completed", **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}",
        "TrainingJobStatus": status,
        "SecondaryStatus": status,
        "AlgorithmSpecification": {"TrainingImage": TRAIN_IMAGE, "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        **more,
    }


KEPT: dict[str, Any] = {"WarmPoolStatus": {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 60}}
NO_CAPACITY = described(status="Failed", FailureReason=CAPACITY)


@pytest.fixture
def data(aws: Session, image: None) -> tuple[str, ...]:
    return ("--image", TRAIN_IMAGE, "--data", put_data(aws), "--role", ROLE, "--name")


def test_the_cost_and_the_end_of_a_warm_pool_are_said(
    data: tuple[str, ...], call: Call, monkeypatch: Patch, calls: list[str]
) -> None:
    give(monkeypatch, "DescribeTrainingJob", PASS, described(**KEPT))
    ended = call(train, *data, NAME, "--keep-alive", "1800")
    ended.says(
        "its instances are kept for 1800 s after it (--keep-alive), and billed, 0.37 USD more at most",
        f"give them back with: scripts/train.py --stop {NAME} --region {REGION}",
    )
    give(monkeypatch, "UpdateTrainingJob", {})
    ended = call(train, "--stop", NAME)
    ended.says("has ended already: Completed", "the instances that it kept (--keep-alive) are given back")
    assert calls[-1] == "sagemaker:UpdateTrainingJob"


@pytest.mark.usefixtures("aws")
def test_cleanup_lists_and_ends_warm_pools(call: Call, monkeypatch: Patch, calls: list[str]) -> None:
    pool = described(**KEPT)
    others = {**described("byoc-old"), "WarmPoolStatus": {"Status": "Terminated"}}
    nothing: dict[str, Any] = {"TrainingJobSummaries": []}
    ended = {"TrainingJobSummaries": [pool, others]}
    give(monkeypatch, "ListTags", {"Tags": [{"Key": "byoc-project", "Value": "byoc"}]})
    give(monkeypatch, "DescribeTrainingJob", pool)
    give(monkeypatch, "UpdateTrainingJob", {})
    give(monkeypatch, "ListTrainingJobs", nothing, nothing, ended)  # in progress, stopping, with a pool
    listed = call(cleanup, "--json").json["found"]
    assert [(one["kind"], one["name"], one["usd_per_hour"]) for one in listed] == [("warm pool", NAME, 1.408)]
    give(monkeypatch, "ListTrainingJobs", nothing, nothing, ended)
    call(cleanup, "--jobs", "--yes").says(f"stopping warm pool {NAME}")
    assert "sagemaker:UpdateTrainingJob" in calls
    assert "sagemaker:StopTrainingJob" not in calls
    assert "warm pool" not in usage._READERS  # it reads nothing


def test_a_request_for_every_type(call: Call) -> None:
    key = "1234abcd-key"
    first, second = call(train, *BASE, *DATA, *TYPES, "--spot", "--volume-kms-key", key).requests
    resources = {"InstanceCount": 1, "VolumeSizeInGB": 30}
    assert (first.pop("TrainingJobName"), second.pop("TrainingJobName")) == (NAME, f"{NAME}-2")
    assert first.pop("ResourceConfig") == {"InstanceType": "ml.g5.xlarge", **resources}
    assert second.pop("ResourceConfig") == {"InstanceType": "ml.m5.large", "VolumeKmsKeyId": key, **resources}
    assert first == second
    assert second["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/byoc/{NAME}/checkpoints"}


def test_it_goes_on_with_the_next_type(aws: Session, data: tuple[str, ...], call: Call, monkeypatch: Patch) -> None:
    give(monkeypatch, "DescribeTrainingJob", PASS, PASS, NO_CAPACITY, PASS)
    ended = call(train, *data, NAME, *TYPES, "--spot")
    ended.says(f"{NAME}: no capacity for ml.g5.xlarge; going on as {NAME}-2 on ml.m5.large\n", f"created {NAME}-2")
    assert ended.out == f"s3://{BUCKET}/byoc/{NAME}-2/output/model.tar.gz\n"
    made = [aws.client("sagemaker").describe_training_job(TrainingJobName=name) for name in (NAME, f"{NAME}-2")]
    assert made[0]["CheckpointConfig"] == made[1]["CheckpointConfig"]
    assert made[1]["ResourceConfig"]["InstanceType"] == "ml.m5.large"


@pytest.mark.parametrize(
    ("answers", "jobs"),
    [
        # The first one trained, and failed for a reason of its own.
        ([described(status="Failed", FailureReason="AlgorithmError: exit code 1")], [NAME]),
        # None of them has any left.
        ([NO_CAPACITY, described(f"{NAME}-2", status="Failed", FailureReason=CAPACITY)], [NAME, f"{NAME}-2"]),
    ],
)
def test_it_ends_where_nothing_else_is_left_to_try(
    aws: Session, data: tuple[str, ...], call: Call, monkeypatch: Patch, answers: list[Any], jobs: list[str]
) -> None:
    give(monkeypatch, "DescribeTrainingJob", PASS, PASS, *answers)
    ended = call(train, *data, NAME, *TYPES)
    assert (ended.code, ended.out) == (1, "")
    reason = answers[-1]["FailureReason"]
    again = "; call it again with another --instance-type, or several: A,B" if reason == CAPACITY else ""
    assert ended.last == f"train.py: {jobs[-1]} failed: {reason}{again}"
    listed = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert sorted(one["TrainingJobName"] for one in listed) == jobs


def test_the_name_of_a_later_one_that_is_taken(data: tuple[str, ...], call: Call) -> None:
    assert call(train, *data, f"{NAME}-2").code == 0
    call(train, *data, NAME, *TYPES).ends(1, f"a job {NAME}-2 already exists")
