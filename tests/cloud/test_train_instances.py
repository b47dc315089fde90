"""train.py: instances that are kept for the next job, and other types where the service has none of the first."""

import json
from typing import Any

import boto3
import pytest

from scripts import cleanup
from scripts.console import command
from scripts.resources import usage
from tests.cloud.answers import PASS, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.test_train import BASE, BUCKET, DATA, IMAGE, call, dry, no_waiting

NAME = "byoc-job-1"
TYPES = ("--instance-type", "ml.g5.xlarge,ml.m5.large")
CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
__all__ = ["no_waiting"]  # a fixture of every test here, too


def described(name: str = NAME, *, status: str = "Completed", **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}",
        "TrainingJobStatus": status,
        "SecondaryStatus": status,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        **more,
    }


KEPT: dict[str, Any] = {"WarmPoolStatus": {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 60}}


@pytest.fixture
def data(aws: boto3.Session, image: None) -> tuple[str, ...]:
    for split in ("train", "valid", "test"):
        aws.client("s3").put_object(Bucket=BUCKET, Key=f"byoc/data/x/{split}/cat/1.jpg", Body=b"1")
    return ("--image", IMAGE, "--data", f"s3://{BUCKET}/byoc/data/x", "--name", NAME, "--role", ROLE)


# Warm pools


def test_the_request_that_keeps_the_instances(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE, *DATA, "--keep-alive", "1800")
    assert shown["request"]["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 1800
    (shown,) = dry(capsys, *BASE, *DATA, "--keep-alive", "0")
    assert "KeepAlivePeriodInSeconds" not in shown["request"]["ResourceConfig"]


def test_its_cost_and_its_end_are_said(
    aws: boto3.Session,
    data: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    calls: list[str],
) -> None:
    give(monkeypatch, "DescribeTrainingJob", PASS, described(**KEPT))
    code, _, err = call(capsys, *data, "--keep-alive", "1800")
    assert code == 0, err
    assert "its instances are kept for 1800 s after it (--keep-alive), and billed, 0.37 USD more at most" in err
    assert f"give them back with: scripts/train.py --stop {NAME} --region {REGION}" in err
    give(monkeypatch, "UpdateTrainingJob", {})
    code, _, err = call(capsys, "--stop", NAME)
    assert code == 0
    assert "has ended already: Completed" in err
    assert "the instances that it kept (--keep-alive) are given back" in err
    assert calls[-1] == "sagemaker:UpdateTrainingJob"


def test_cleanup_lists_and_ends_warm_pools(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    pool = described(**KEPT)
    others = {**described("byoc-old"), "WarmPoolStatus": {"Status": "Terminated"}}
    nothing: dict[str, Any] = {"TrainingJobSummaries": []}
    ended = {"TrainingJobSummaries": [pool, others]}
    give(monkeypatch, "ListTags", {"Tags": [{"Key": "byoc-project", "Value": "byoc"}]})
    give(monkeypatch, "DescribeTrainingJob", pool)
    give(monkeypatch, "UpdateTrainingJob", {})
    give(monkeypatch, "ListTrainingJobs", nothing, nothing, ended)  # in progress, stopping, with a pool
    assert command.run("cleanup.py", cleanup.main, ["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["found"]
    give(monkeypatch, "ListTrainingJobs", nothing, nothing, ended)
    assert [(one["kind"], one["name"], one["usd_per_hour"]) for one in listed] == [("warm pool", NAME, 1.408)]
    assert command.run("cleanup.py", cleanup.main, ["--jobs", "--yes"]) == 0
    assert f"stopping warm pool {NAME}" in capsys.readouterr().err
    assert "sagemaker:UpdateTrainingJob" in calls
    assert "sagemaker:StopTrainingJob" not in calls
    assert "warm pool" not in usage._READERS  # it reads nothing


# Capacity


def test_a_request_for_every_type(capsys: pytest.CaptureFixture[str]) -> None:
    key = "1234abcd-key"
    first, second = dry(capsys, *BASE, *DATA, *TYPES, "--spot", "--volume-kms-key", key)
    checkpoints = {"S3Uri": f"s3://{BUCKET}/byoc/{NAME}/checkpoints"}
    resources = {"InstanceCount": 1, "VolumeSizeInGB": 30}
    assert (first["request"]["TrainingJobName"], second["request"]["TrainingJobName"]) == (NAME, f"{NAME}-2")
    assert first["request"]["ResourceConfig"] == {"InstanceType": "ml.g5.xlarge", **resources}
    assert second["request"]["ResourceConfig"] == {"InstanceType": "ml.m5.large", "VolumeKmsKeyId": key, **resources}
    own = ("TrainingJobName", "ResourceConfig")
    rest = [{name: value for name, value in one["request"].items() if name not in own} for one in (first, second)]
    assert rest[0] == rest[1]
    assert rest[1]["CheckpointConfig"] == checkpoints


def test_it_goes_on_with_the_next_type(
    aws: boto3.Session, data: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "DescribeTrainingJob", PASS, PASS, described(status="Failed", FailureReason=CAPACITY), PASS)
    code, out, err = call(capsys, *data, *TYPES, "--spot")
    assert code == 0, err
    assert f"{NAME}: no capacity for ml.g5.xlarge; going on as {NAME}-2 on ml.m5.large\n" in err
    assert f"created {NAME}-2" in err
    assert out == f"s3://{BUCKET}/byoc/{NAME}-2/output/model.tar.gz\n"
    made = [aws.client("sagemaker").describe_training_job(TrainingJobName=name) for name in (NAME, f"{NAME}-2")]
    assert made[0]["CheckpointConfig"] == made[1]["CheckpointConfig"]
    assert made[1]["ResourceConfig"]["InstanceType"] == "ml.m5.large"


@pytest.mark.parametrize(
    ("answers", "jobs"),
    [
        # The first one trained, and failed for a reason of its own.
        ([PASS, PASS, described(status="Failed", FailureReason="AlgorithmError: exit code 1")], [NAME]),
        # None of them has any left.
        (
            [
                PASS, PASS, described(status="Failed", FailureReason=CAPACITY),
                described(f"{NAME}-2", status="Failed", FailureReason=CAPACITY),
            ],
            [NAME, f"{NAME}-2"],
        ),
    ],
)  # fmt: skip
def test_it_ends_where_nothing_else_is_left_to_try(
    aws: boto3.Session,
    data: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Any],
    jobs: list[str],
) -> None:
    give(monkeypatch, "DescribeTrainingJob", *answers)
    code, out, err = call(capsys, *data, *TYPES)
    assert (code, out) == (1, "")
    reason = answers[-1]["FailureReason"]
    again = "; call it again with another --instance-type, or several: A,B" if reason == CAPACITY else ""
    assert err.splitlines()[-1] == f"train.py: {jobs[-1]} failed: {reason}{again}"
    listed = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert sorted(one["TrainingJobName"] for one in listed) == jobs


def test_a_name_of_a_later_one_that_is_taken(data: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, *data[:4], "--name", f"{NAME}-2", "--role", ROLE)[0] == 0
    code, _, err = call(capsys, *data, *TYPES)
    assert code == 1
    assert f"a job {NAME}-2 already exists" in err.splitlines()[-1]
