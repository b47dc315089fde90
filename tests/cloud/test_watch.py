"""Following a job: its statuses, its log, its metrics, and what may come in between."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boto3 import Session
from botocore.exceptions import EndpointConnectionError

from container_train.training.metrics import NAMES, line
from scripts import train
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.jobs import training_jobs, watch
from scripts.jobs.training_jobs import Job
from scripts.jobs.watch import LOG_GROUP, Log, Metrics, ToolkitLogFilter
from tests.cloud import resources
from tests.cloud.answers import error, give
from tests.cloud.conftest import ACCOUNT, REGION, Call
from tests.conftest import Patch

NAME = "byoc-job"
START = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)


def described(status: str, *steps: tuple[str, str], **more: Any) -> dict[str, Any]:
    """DescribeTrainingJob's answer; steps a minute apart."""
    return {
        "TrainingJobName": NAME,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{NAME}",
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://bucket/byoc/{NAME}/output/model.tar.gz"},
        "TrainingJobStatus": status,
        "SecondaryStatus": steps[-1][0],
        "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "SecondaryStatusTransitions": [
            {"Status": step, "StatusMessage": message, "StartTime": START + timedelta(minutes=number)}
            for number, (step, message) in enumerate(steps)
        ],
        **more,
    }


STARTING = ("Starting", "Launching requested ML instances")
WAITING = ("Starting", "Insufficient capacity error, retrying!")
DOWNLOADING = ("Downloading", "Downloading input data")
TRAINING = ("Training", "Training image download completed")
COMPLETED = ("Completed", "Training job completed")
BEGUN, OVER = described("InProgress", STARTING), described("Completed", STARTING, TRAINING, COMPLETED)


@pytest.fixture
def account(aws: Session) -> Aws:
    return Aws(REGION)


def write_log(aws: Session, *lines: str) -> None:
    resources.write_log(aws, LOG_GROUP, f"{NAME}/algo-1-1", *lines)


def epoch(number: int, accuracy: float) -> list[str]:
    values = (number, 0.5, 0.8, 0.4, accuracy, 0.6, 100.0)
    return [line(name, value) for name, value in zip(NAMES, values, strict=False)]


def follow(account: Aws, *meanwhile: Callable[[], None]) -> tuple[Job, Metrics, list[str]]:
    """Follow the job; `meanwhile` happens in its pauses."""
    said: list[str] = []
    happenings = list(meanwhile)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.sleep", lambda _: happenings.pop(0)() if happenings else None)
        job, metrics = watch.follow(account, NAME, said.append)
    return job, metrics, said


def at(minute: int) -> str:
    return (START + timedelta(minutes=minute)).astimezone().strftime("%H:%M:%S")


def test_statuses_log_and_metrics_as_they_come(aws: Session, account: Aws, monkeypatch: Patch) -> None:
    steps = (WAITING, DOWNLOADING, TRAINING, COMPLETED)
    looks = [described("InProgress", *steps[:2]), described("InProgress", *steps[:3]), described("Completed", *steps)]
    give(monkeypatch, "DescribeTrainingJob", BEGUN, *looks)
    job, metrics, said = follow(
        account,
        lambda: None,  # nothing in the log yet: not even its group
        lambda: write_log(aws, "data: 3 classes", *epoch(1, 0.7)[:4]),
        lambda: write_log(aws, *epoch(1, 0.7)[4:], *epoch(2, 0.9), *epoch(3, 0.8), line("best_epoch", 2)),
        lambda: write_log(aws, line("test_accuracy", 0.85)),  # comes after the job's end
    )
    assert job.status == "Completed"
    record = "train_loss 0.5, train_accuracy 0.8, valid_loss 0.4, valid_accuracy {}, valid_macro_f1 0.6"
    record += ", images_per_second 100"
    assert said == [
        f"{at(0)} Starting: Launching requested ML instances",
        f"{at(0)} Starting: Insufficient capacity error, retrying!",  # a message that changed
        f"{at(1)} Downloading: Downloading input data",
        f"{at(2)} Training: Training image download completed",
        "  data: 3 classes",
        f"{at(3)} Completed: Training job completed",
        f"  epoch 1: {record.format(0.7)}",
        f"  epoch 2: {record.format(0.9)}",
        f"  epoch 3: {record.format(0.8)}",
        "  best_epoch=2",
        "  test_accuracy=0.85",
    ]
    kept = {"best_epoch": 2, "train_accuracy": 0.8, "valid_accuracy": 0.9, "valid_loss": 0.4}
    assert metrics.summary() == {**kept, "test_accuracy": 0.85}


def test_throttling_and_a_broken_network_are_survived(account: Aws, monkeypatch: Patch) -> None:
    throttled = error("ThrottlingException", "Rate exceeded")
    broken = [
        EndpointConnectionError(endpoint_url="https://x"),
        error("InternalFailure", "x", ResponseMetadata={"HTTPStatusCode": 500}),
    ]
    give(monkeypatch, "DescribeTrainingJob", BEGUN, throttled, throttled, BEGUN, *broken, OVER)
    job, _, said = follow(account)
    assert job.status == "Completed"
    first, second = (text for text in said if "trying again" in text)  # once for each time of trouble, not each try
    assert "Rate exceeded" in first
    assert "cannot be reached" in second


def test_an_error_that_stays_says_how_to_come_back(account: Aws, monkeypatch: Patch) -> None:
    give(monkeypatch, "DescribeTrainingJob", BEGUN, error("ExpiredTokenException", "expired"))
    with pytest.raises(CloudError, match=f"have expired.*--attach {NAME}"):
        follow(account)


def test_without_the_permission_for_logs_the_job_is_followed(
    account: Aws, monkeypatch: Patch, calls: list[str]
) -> None:
    give(monkeypatch, "DescribeTrainingJob", BEGUN, BEGUN, OVER)
    give(monkeypatch, "DescribeLogStreams", error("AccessDeniedException", "not authorized"))
    job, _, said = follow(account)
    assert job.status == "Completed"
    assert len([text for text in said if text.startswith("the log cannot be read: DescribeLogStreams")]) == 1
    assert calls.count("logs:DescribeLogStreams") == 1


def test_of_a_long_log_the_end_is_shown(aws: Session, account: Aws, monkeypatch: Patch) -> None:
    give(monkeypatch, "DescribeTrainingJob", described("Completed", COMPLETED))
    write_log(aws, *(f"line {number}" for number in range(100)), *epoch(1, 0.5), "last")
    _, metrics, said = follow(account)
    assert said[1:3] == [f"(82 lines before these are in CloudWatch, {LOG_GROUP})", "  line 82"]
    assert said[-1] == "  last"
    assert metrics.summary()["valid_accuracy"] == 0.5


def test_a_log_of_many_pages_and_streams_is_read_once(account: Aws, monkeypatch: Patch) -> None:
    """Pages are followed to where the token stays the same; an empty one in between is not the end."""

    def page(token: str, *lines: str) -> dict[str, Any]:
        return {"events": [{"message": text} for text in lines], "nextForwardToken": token}

    streams = [{"logStreamName": "a"}], [{"logStreamName": "b"}]
    give(monkeypatch, "DescribeLogStreams", {"logStreams": streams[0], "nextToken": "x"}, {"logStreams": streams[1]})
    first = [page("t1", "1"), page("t2"), page("t3", "2"), page("t3"), page("u1", "3"), page("u1")]
    give(monkeypatch, "GetLogEvents", *first)
    log = Log(account, NAME)
    assert list(log.new()) == ["1", "2", "3"]
    give(monkeypatch, "DescribeLogStreams", {"logStreams": streams[0]})
    give(monkeypatch, "GetLogEvents", page("t3"), page("t4", "4"), page("t4"))
    assert list(log.new()) == []
    assert list(log.new()) == ["4"]
    assert log.tokens == {"a": "t4", "b": "u1"}


def test_the_toolkits_page_about_itself_is_left_out() -> None:
    said = """
2026-11-22 17:02:23,028 sagemaker-training-toolkit INFO     No GPUs detected (normal if no gpus installed)
2026-11-22 17:02:23,029 sagemaker-training-toolkit INFO     Failed to parse hyperparameter arch value x to Json.
Returning the value itself

Training Env:

{
    "channel_input_dirs": {}
}

Invoking script with the following command:

/opt/venv/bin/python /opt/program/container_train/__main__.py --epochs 1

data: 3 classes
2026-11-22 17:04:30,365 sagemaker-training-toolkit ERROR    Reporting training FAILURE
"""
    quiet = ToolkitLogFilter()
    kept = [text for text in said.splitlines() if quiet.keeps(text) and text]
    assert kept == ["data: 3 classes", said.splitlines()[-1]]
    # An error in the midst of that page is shown.
    lines = ["Training Env:", "{", "Traceback (most recent call last):", "ValueError: x"]
    quiet = ToolkitLogFilter()
    assert [text for text in lines if quiet.keeps(text)] == lines[2:]


def test_metrics_of_another_program_on_one_line() -> None:
    metrics = Metrics()
    lines = ("epoch=1 train_loss=nan valid_accuracy=0.5", "epoch=2 valid_accuracy=0.6", "bye")
    shown = [out for text in lines for out in metrics.feed(text)]
    assert shown == ["epoch 1: train_loss nan, valid_accuracy 0.5", "epoch 2: valid_accuracy 0.6", "bye"]
    assert metrics.summary() == {"best_epoch": 2, "valid_accuracy": 0.6}


# --- the end of a job, as train.py tells it


@pytest.fixture
def attach(aws: Session, monkeypatch: Patch, call: Call) -> Callable[..., Any]:
    def made(answer: dict[str, Any], *flags: str) -> Any:
        give(monkeypatch, "DescribeTrainingJob", answer)
        return call(train, "--attach", NAME, *flags)

    return made


def test_a_completed_spot_job(attach: Callable[..., Any]) -> None:
    final = {"valid_accuracy": 0.5, "valid_loss": float("nan")}
    facts = {"EnableManagedSpotTraining": True, "BillableTimeInSeconds": 900, "TrainingTimeInSeconds": 3000}
    metrics = [{"MetricName": name, "Value": value, "Timestamp": START} for name, value in final.items()]
    ended = attach(described("Completed", COMPLETED, FinalMetricDataList=metrics, **facts), "--json")
    assert ended.code == 0
    ended.says(
        "billed: 900 s of 2 x ml.g4dn.xlarge, 0.37 USD",
        "spot instances saved 70%",
        "metrics: valid_accuracy 0.5",  # the service's, where the log has none
        f"next: scripts/deploy.py --job {NAME}",
    )
    assert ended.json == {
        "name": NAME, "status": "Completed", "model": f"s3://bucket/byoc/{NAME}/output/model.tar.gz",
        "image": "image:1", "instance_type": "ml.g4dn.xlarge", "instance_count": 2, "training_seconds": 3000,
        "billable_seconds": 900, "cost_usd": 0.3682, "spot_saved": 0.7,
        "metrics": {"valid_accuracy": 0.5, "valid_loss": None}, "failure": None,
        "console": training_jobs.console(REGION, NAME),
    }  # fmt: skip


def test_jobs_that_failed_or_were_stopped(aws: Session, attach: Callable[..., Any]) -> None:
    write_log(aws, "data: 3 classes", "error: hyperparameter lr is wrong")
    reason = "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nhyperparameter lr is wrong"
    ended = attach(described("Failed", ("Failed", "Training job failed"), FailureReason=reason))
    assert (ended.code, ended.out) == (1, "")
    assert "  error: hyperparameter lr is wrong" in ended.err.splitlines()
    assert ended.last == f"train.py: {NAME} failed: {' '.join(reason.split())}"
    ended = attach(described("Stopped", ("MaxRuntimeExceeded", "too long")))
    assert (ended.code, ended.out) == (1, "")
    assert f"{NAME} was stopped (MaxRuntimeExceeded); what it had saved: s3://bucket/" in ended.last
