"""Following a job: its statuses, its log, its metrics, and what may come in between."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber

from container_train.training.metrics import NAMES, line
from scripts import train
from scripts.aws import settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.console import command
from scripts.jobs import training_jobs, watch
from scripts.jobs.training_jobs import Job
from scripts.jobs.watch import LOG_GROUP, Log, Metrics, ToolkitLogFilter
from tests.cloud.conftest import ACCOUNT, REGION

NAME = "byoc-job"
START = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)
DESCRIBE = {"TrainingJobName": NAME}


def described(status: str, *steps: tuple[str, str], **more: Any) -> dict[str, Any]:
    """DescribeTrainingJob's answer; steps a minute apart."""
    return {
        "TrainingJobName": NAME,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{NAME}",
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://bucket/byoc/{NAME}/output/model.tar.gz"},
        "TrainingJobStatus": status,
        "SecondaryStatus": steps[-1][0] if steps else "Starting",
        "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "CreationTime": START,
        "SecondaryStatusTransitions": [
            {"Status": step, "StatusMessage": message, "StartTime": START + timedelta(minutes=number)}
            for number, (step, message) in enumerate(steps)
        ],
        **more,
    }


STARTING = ("Starting", "Launching requested ML instances")
DOWNLOADING = ("Downloading", "Downloading input data")
TRAINING = ("Training", "Training image download completed")
COMPLETED = ("Completed", "Training job completed")
FAILED = ("Failed", "Training job failed")


@pytest.fixture
def account(aws: boto3.Session) -> Aws:
    return Aws(REGION)


@pytest.fixture
def service(account: Aws) -> Any:
    with Stubber(account.client("sagemaker")) as stub:
        yield stub
        stub.assert_no_pending_responses()


def write_log(aws: boto3.Session, *lines: str, stream: str = f"{NAME}/algo-1-1") -> None:
    logs = aws.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
        logs.create_log_group(logGroupName=LOG_GROUP)
    known = logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=stream)["logStreams"]
    if not known:
        logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
    now = int(datetime.now(UTC).timestamp() * 1000)
    logs.put_log_events(
        logGroupName=LOG_GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": now, "message": text} for text in lines],
    )


def epoch(number: int, accuracy: float) -> list[str]:
    values = (number, 0.5, 0.8, 0.4, accuracy, 0.6, 100.0)
    return [line(name, value) for name, value in zip(NAMES, values, strict=False)]


class Sleep:
    """Stands for time.sleep: calls what is to happen in the meantime."""

    def __init__(self, *happenings: Callable[[], None]) -> None:
        self.happenings = list(happenings)
        self.times = 0

    def __call__(self, seconds: float) -> None:
        self.times += 1
        if self.happenings:
            self.happenings.pop(0)()


def follow(account: Aws, sleep: Callable[[float], None]) -> tuple[Job, Metrics, list[str]]:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.sleep", sleep)
        job, metrics = watch.follow(account, NAME, said.append)
    return job, metrics, said


def at(minute: int) -> str:
    return (START + timedelta(minutes=minute)).astimezone().strftime("%H:%M:%S")


def test_statuses_log_and_metrics_as_they_come(aws: boto3.Session, account: Aws, service: Stubber) -> None:
    service.add_response("describe_training_job", described("InProgress", STARTING), DESCRIBE)
    service.add_response("describe_training_job", described("InProgress", STARTING, DOWNLOADING), DESCRIBE)
    service.add_response("describe_training_job", described("InProgress", STARTING, DOWNLOADING, TRAINING), DESCRIBE)
    service.add_response(
        "describe_training_job", described("Completed", STARTING, DOWNLOADING, TRAINING, COMPLETED), DESCRIBE
    )
    sleep = Sleep(
        lambda: None,  # nothing in the log yet: not even its group
        lambda: write_log(aws, "data: 3 classes", *epoch(1, 0.7)[:4]),
        lambda: write_log(aws, *epoch(1, 0.7)[4:], *epoch(2, 0.9), *epoch(3, 0.8), line("best_epoch", 2)),
        lambda: write_log(aws, line("test_accuracy", 0.85)),  # comes after the job's end
    )
    job, metrics, said = follow(account, sleep)
    assert job.status == "Completed"
    record = "train_loss 0.5, train_accuracy 0.8, valid_loss 0.4, valid_accuracy {}, valid_macro_f1 0.6"
    record += ", images_per_second 100"
    assert said == [
        f"{at(0)} Starting: Launching requested ML instances",
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
    assert metrics.summary() == {
        "best_epoch": 2,
        "train_accuracy": 0.8,
        "valid_accuracy": 0.9,
        "valid_loss": 0.4,
        "test_accuracy": 0.85,
    }


def test_a_message_that_changes_is_said_again(account: Aws, service: Stubber) -> None:
    waiting = ("Starting", "Insufficient capacity error, retrying!")
    for answer in (
        described("InProgress", STARTING),
        described("InProgress", waiting),
        described("InProgress", waiting),
        described("Completed", waiting, COMPLETED),
    ):
        service.add_response("describe_training_job", answer, DESCRIBE)
    _, _, said = follow(account, Sleep())
    assert [text.partition(" ")[2].partition(":")[0] for text in said] == ["Starting", "Starting", "Completed"]
    assert "Insufficient capacity" in said[1]


def test_throttling_and_a_broken_network_are_survived(
    account: Aws, service: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [
        described("InProgress", STARTING),
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "DescribeTrainingJob"),
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "DescribeTrainingJob"),
        described("InProgress", STARTING, TRAINING),
        EndpointConnectionError(endpoint_url="https://x"),
        ClientError(
            {"Error": {"Code": "InternalFailure", "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": 500}},
            "DescribeTrainingJob",
        ),
        described("Completed", STARTING, TRAINING, COMPLETED),
    ]

    def answer(**_: object) -> Any:
        first = answers.pop(0)
        if isinstance(first, Exception):
            raise first
        return first

    monkeypatch.setattr(account.client("sagemaker"), "describe_training_job", answer)
    job, _, said = follow(account, Sleep())
    assert job.status == "Completed"
    trouble = [text for text in said if "trying again" in text]
    assert len(trouble) == 2  # once for each time of trouble, not for each try
    assert "Rate exceeded" in trouble[0]
    assert "cannot be reached" in trouble[1]


def test_an_error_that_stays_says_how_to_come_back(account: Aws, service: Stubber) -> None:
    service.add_response("describe_training_job", described("InProgress", STARTING), DESCRIBE)
    service.add_client_error("describe_training_job", "ExpiredTokenException", "expired")
    with pytest.raises(CloudError, match=f"have expired.*--attach {NAME}"):
        follow(account, Sleep())


def test_without_the_permission_for_logs_the_job_is_followed(account: Aws, service: Stubber, calls: list[str]) -> None:
    for answer in (described("InProgress", STARTING), described("InProgress", STARTING, TRAINING),
                   described("Completed", STARTING, TRAINING, COMPLETED)):  # fmt: skip
        service.add_response("describe_training_job", answer, DESCRIBE)
    with Stubber(account.client("logs")) as logs:
        logs.add_client_error("describe_log_streams", "AccessDeniedException", "not authorized")
        job, _, said = follow(account, Sleep())
    assert job.status == "Completed"
    assert len([text for text in said if text.startswith("the log cannot be read: DescribeLogStreams")]) == 1
    assert calls.count("logs:DescribeLogStreams") == 1


def test_of_a_long_log_the_end_is_shown(aws: boto3.Session, account: Aws, service: Stubber) -> None:
    service.add_response("describe_training_job", described("Completed", COMPLETED), DESCRIBE)
    write_log(aws, *(f"line {number}" for number in range(100)), *epoch(1, 0.5), "last")
    _, metrics, said = follow(account, Sleep())
    assert said[1] == f"(82 lines before these are in CloudWatch, {LOG_GROUP})"
    assert said[2] == "  line 82"
    assert said[-1] == "  last"
    assert metrics.summary()["valid_accuracy"] == 0.5


def test_a_log_of_many_pages_and_streams_is_read_once(account: Aws) -> None:
    """Pages are followed to where the token stays the same; an empty one in between is not the end."""
    pages: dict[tuple[str, str | None], tuple[list[str], str]] = {
        ("a", None): (["1"], "t1"),
        ("a", "t1"): ([], "t2"),
        ("a", "t2"): (["2"], "t3"),
        ("a", "t3"): ([], "t3"),
        ("b", None): (["3"], "u1"),
        ("b", "u1"): ([], "u1"),
    }
    log = Log(account, NAME)

    class Client:
        def get_paginator(self, name: str) -> Any:
            assert name == "describe_log_streams"
            return self

        def paginate(self, **request: str) -> list[dict[str, Any]]:
            assert request == {"logGroupName": LOG_GROUP, "logStreamNamePrefix": f"{NAME}/"}
            return [{"logStreams": [{"logStreamName": "a"}]}, {"logStreams": [{"logStreamName": "b"}]}]

        def get_log_events(self, logStreamName: str, nextToken: str | None = None, **_: Any) -> dict[str, Any]:
            lines, token = pages[logStreamName, nextToken]
            return {"events": [{"message": text} for text in lines], "nextForwardToken": token}

    log.client = Client()
    assert list(log.new()) == ["1", "2", "3"]
    assert list(log.new()) == []
    pages["a", "t3"] = (["4"], "t4")
    pages["a", "t4"] = ([], "t4")
    assert list(log.new()) == ["4"]


def test_the_toolkits_page_about_itself_is_left_out() -> None:
    said = """
2026-11-22 17:02:23,028 sagemaker-training-toolkit INFO     No GPUs detected (normal if no gpus installed)
2026-11-22 17:02:23,029 sagemaker-training-toolkit INFO     Failed to parse hyperparameter arch value x to Json.
Returning the value itself
2026-11-22 17:02:23,073 sagemaker-training-toolkit INFO     Invoking user script

Training Env:

{
    "channel_input_dirs": {}
}

Environment variables:

SM_HOSTS=["algo-1"]

Invoking script with the following command:

/opt/venv/bin/python /opt/program/container_train/__main__.py --epochs 1

data: 3 classes
epoch=1
2026-11-22 17:04:30,365 sagemaker-training-toolkit ERROR    Reporting training FAILURE
"""
    quiet = ToolkitLogFilter()
    kept = [text for text in said.splitlines() if quiet.keeps(text) and text]
    assert kept == ["data: 3 classes", "epoch=1", said.splitlines()[-1]]


def test_an_error_in_the_midst_of_that_page_is_shown() -> None:
    quiet = ToolkitLogFilter()
    lines = ["Training Env:", "{", "Traceback (most recent call last):", "ValueError: x"]
    assert [text for text in lines if quiet.keeps(text)] == lines[2:]


def test_metrics_of_another_program_on_one_line() -> None:
    metrics = Metrics()
    shown = [out for text in ("epoch=1 train_loss=nan valid_accuracy=0.5", "epoch=2 valid_accuracy=0.6", "bye")
             for out in metrics.feed(text)]  # fmt: skip
    assert shown == ["epoch 1: train_loss nan, valid_accuracy 0.5", "epoch 2: valid_accuracy 0.6", "bye"]
    assert metrics.summary() == {"best_epoch": 2, "valid_accuracy": 0.6}


# --- the end of a job, as train.py tells it


def attach(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: dict[str, Any],
           *flags: str) -> tuple[int, str, str]:  # fmt: skip
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    account = Aws(REGION)
    monkeypatch.setattr(settings, "Aws", lambda *_, **__: account)
    with Stubber(account.client("sagemaker")) as stub:
        stub.add_response("describe_training_job", answer, DESCRIBE)
        code = command.run("train.py", train.main, ["--attach", NAME, *flags])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.usefixtures("aws")
def test_a_completed_spot_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer = described(
        "Completed",
        COMPLETED,
        EnableManagedSpotTraining=True,
        BillableTimeInSeconds=900,
        TrainingTimeInSeconds=3000,
        FinalMetricDataList=[
            {"MetricName": "valid_accuracy", "Value": 0.5, "Timestamp": START},
            {"MetricName": "valid_loss", "Value": float("nan"), "Timestamp": START},
        ],
    )
    code, out, err = attach(monkeypatch, capsys, answer, "--json")
    assert code == 0
    assert "billed: 900 s of 2 x ml.g4dn.xlarge, 0.37 USD" in err
    assert "spot instances saved 70%" in err
    assert "metrics: valid_accuracy 0.5" in err  # the service's, where the log has none
    assert f"next: scripts/deploy.py --job {NAME}" in err
    assert json.loads(out) == {
        "name": NAME,
        "status": "Completed",
        "model": f"s3://bucket/byoc/{NAME}/output/model.tar.gz",
        "image": "image:1",
        "instance_type": "ml.g4dn.xlarge",
        "instance_count": 2,
        "training_seconds": 3000,
        "billable_seconds": 900,
        "cost_usd": 0.3682,
        "spot_saved": 0.7,
        "metrics": {"valid_accuracy": 0.5, "valid_loss": None},
        "failure": None,
        "console": training_jobs.console(REGION, NAME),
    }


def test_a_failed_job(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(aws, "data: 3 classes", "error: hyperparameter lr is wrong")
    reason = "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nhyperparameter lr is wrong"
    code, out, err = attach(monkeypatch, capsys, described("Failed", FAILED, FailureReason=reason))
    assert (code, out) == (1, "")
    assert "  error: hyperparameter lr is wrong" in err.splitlines()
    assert err.splitlines()[-1] == (
        f"train.py: {NAME} failed: AlgorithmError: ExecuteUserScriptError: ExitCode 1 hyperparameter lr is wrong"
    )


@pytest.mark.usefixtures("aws")
def test_a_stopped_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = attach(monkeypatch, capsys, described("Stopped", ("MaxRuntimeExceeded", "too long")))
    assert (code, out) == (1, "")
    assert f"{NAME} was stopped (MaxRuntimeExceeded); what it had saved: s3://bucket/" in err.splitlines()[-1]


@pytest.mark.usefixtures("aws")
def test_ctrl_c_ends_the_script_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training_jobs, "describe", interrupted)
    assert command.run("train.py", train.main, ["--attach", NAME]) == 130
    assert (
        f"the job is still running and billed; re-attach with: scripts/train.py --attach {NAME}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [("InProgress", "is being stopped; it has 120 s"), ("Stopping", "is being stopped; it has 120 s")],
)
@pytest.mark.usefixtures("aws")
def test_stopping(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[str], status: str, said: str
) -> None:
    account = Aws(REGION)
    monkeypatch.setattr(settings, "Aws", lambda *_, **__: account)
    with Stubber(account.client("sagemaker")) as stub:
        stub.add_response("describe_training_job", described(status, TRAINING), DESCRIBE)
        if status == "InProgress":
            stub.add_response("stop_training_job", {}, DESCRIBE)
        assert command.run("train.py", train.main, ["--stop", NAME, "--json"]) == 0
        stub.assert_no_pending_responses()
    captured = capsys.readouterr()
    assert said in captured.err
    assert json.loads(captured.out) == {"name": NAME, "status": "Stopping"}
    assert ("sagemaker:StopTrainingJob" in calls) == (status == "InProgress")


def test_what_a_job_is_for_other_scripts(account: Aws, service: Stubber) -> None:
    service.add_response("describe_training_job", described("InProgress", TRAINING), DESCRIBE)
    service.add_response("list_tags", {"Tags": [{"Key": "byoc-project", "Value": "byoc"}]})
    job = training_jobs.describe(account, NAME)
    assert (job.in_progress, job.image, job.tags) == (True, "image:1", {"byoc-project": "byoc"})
    assert (job.cost, job.saved) == (None, None)
