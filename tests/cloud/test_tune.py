"""tune.py in the cloud: the requests it makes, what it refuses, and a search followed, stopped, and trained from."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from container_train.training.metrics import DEFINITIONS, NAMES, line
from scripts import cleanup, train, tune
from scripts.aws.account import Aws
from scripts.console import command
from scripts.jobs import watch
from scripts.tuning import cloud, tuning_jobs
from tests import trees
from tests.cloud.answers import PASS, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_train import BUCKET, IMAGE
from tests.cloud.test_train import PLAIN as JOB
from tests.cloud.test_watch import write_log

NAME = "byoc-search-1"
BASE = ("--image", IMAGE, "--region", REGION, "--role", ROLE, "--name", NAME)
DATA = ("--data", "s3://my-data/dogs")
START = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)


def call(capsys: pytest.CaptureFixture[str], *arguments: object, script: Any = tune) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call; never a traceback."""
    code = command.run(script.PROGRAM, script.main, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def dry(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, err = call(capsys, *arguments, "--dry-run")
    assert code == 0, err
    shown: list[dict[str, Any]] = json.loads(out)
    return shown


# Of a job's request, what a trial's definition has too.
OF_A_JOB = ("AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "Environment")
DEFINITION: dict[str, Any] = {
    **{key: JOB[key] for key in OF_A_JOB},
    "StaticHyperParameters": {"debug": "off", "profile-interval": "0", "epochs": "2"},
    "HyperParameterTuningResourceConfig": JOB["ResourceConfig"],
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
}
CONFIGURATION = {
    "Strategy": "Bayesian",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 1},
    "TrainingJobEarlyStoppingType": "Off",
    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "valid_accuracy"},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
        ],
        "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}],
        "IntegerParameterRanges": [],
    },
}
PLAIN = {
    "HyperParameterTuningJobName": NAME,
    "HyperParameterTuningJobConfig": CONFIGURATION,
    "TrainingJobDefinition": DEFINITION,
    "Tags": [{"Key": "byoc-project", "Value": "byoc"}],
}


def test_the_plain_request(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    assert dry(capsys, *BASE, *DATA) == [
        {"service": "sagemaker", "operation": "CreateHyperParameterTuningJob", "request": PLAIN}
    ]
    assert calls == []


def test_the_request_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """A trial is the job of the same flags."""
    of_both = (
        "--spot", "--max-run", "600", "--max-wait", "900", "--instance-type", "ml.m5.xlarge", "--volume-size", "50",
        "--input-mode", "FastFile", "--network-isolation", "--weights", "s3://my-weights/resnet50.pth",
        "--environment", "A=1", "--output", "s3://results/here/", "--tags", "team=vision", "--subnets", "subnet-1",
        "--security-groups", "sg-1", "--output-kms-key", "alias/out", "--volume-kms-key", "1234abcd-key",
        "--augment", "flip", "--epochs", "5",
    )  # fmt: skip
    search = ("--trials", "40", "--parallel", "4", "--early-stopping", "--warm-start", "byoc-b,byoc-a")
    (shown,) = dry(capsys, *BASE, *DATA, *search, "--warm-start-type", "transfer", *of_both)
    code, out, _ = call(capsys, *BASE, *DATA, *of_both, "--dry-run", script=train)
    assert code == 0
    job = json.loads(out)[0]["request"]
    for key in ("TrainingJobName", "ProfilerConfig"):
        del job[key]
    assert shown["request"] == {
        "HyperParameterTuningJobName": NAME,
        "HyperParameterTuningJobConfig": CONFIGURATION
        | {
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 40, "MaxParallelTrainingJobs": 4},
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "Tags": job.pop("Tags"),
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"debug": "off", "profile-interval": "0", **job.pop("HyperParameters")},
            "HyperParameterTuningResourceConfig": job.pop("ResourceConfig"),
            **job,
            "Environment": {**job["Environment"], "BYOC_OWN_CHECKPOINTS": "1"},
        },
        "WarmStartConfig": {
            "WarmStartType": "TransferLearning",
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": "byoc-a"}, {"HyperParameterTuningJobName": "byoc-b"},
            ],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (("--strategy", "random"), {"Strategy": "Random"}),
        (
            ("--strategy", "hyperband", "--epochs", "9"),
            {
                "Strategy": "Hyperband",
                "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}},
            },
        ),
        (
            ("--strategy", "grid", "--parallel", "50"),
            {
                "Strategy": "Grid",
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 10},
                "ParameterRanges": {
                    "ContinuousParameterRanges": [],
                    "CategoricalParameterRanges": [
                        {"Name": "lr", "Values": ["0.001", "0.003162", "0.01", "0.03162", "0.1"]},
                        {"Name": "batch-size", "Values": ["32", "64"]},
                    ],
                    "IntegerParameterRanges": [],
                },
            },
        ),
    ],
)
def test_strategies(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], changed: dict[str, Any]) -> None:
    (shown,) = dry(capsys, *BASE, *DATA, *arguments)
    assert shown["request"]["HyperParameterTuningJobConfig"] == CONFIGURATION | changed


def test_a_search_without_a_name_gets_one_that_the_service_takes(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE[:-2], *DATA, "--project", "byoc-a-long-project-name")
    name = shown["request"]["HyperParameterTuningJobName"]
    assert re.fullmatch(r"byoc-a-long-\d{8}-\d{6}-[0-9a-f]{4}", name), name
    assert len(name) <= 32


def test_a_folder_is_uploaded_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})
    shown = dry(capsys, *BASE, "--data", str(pictures))
    assert [one["operation"] for one in shown] == ["PutObject"] * 13 + ["CreateHyperParameterTuningJob"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*BASE, *DATA, "--lr", "0.1"), "--lr is in the search space"),
        (("--local", "--data", "sample", "--instance-count", "2"), "unknown hyperparameter instance-count"),
        ((*BASE, *DATA, "--strategy", "grid", "--trials", "3"), "--trials is for the other strategies"),
        ((*BASE, *DATA, "--strategy", "hyperband", "--epochs", "9", "--early-stopping"), "the service takes only one"),
        ((*BASE, *DATA, "--strategy", "hyperband"), "needs at least 3 epochs: give --epochs 9"),
        ((*BASE, *DATA, "--warm-start-type", "transfer"), "--warm-start-type goes with --warm-start"),
        ((*BASE, *DATA, "--warm-start", "a_b"), "--warm-start has value 'a_b'"),
        ((*BASE, *DATA, "--trials", "0"), "argument --trials: '0' must be an integer from 1"),
        ((*BASE, *DATA, "--parallel", "0"), "argument --parallel: '0' must be an integer from 1"),
        ((*BASE, *DATA, "--warm-start", "a,b,c,d,e,f"), "names 6 searches: the service takes 5"),
        ((*BASE, *DATA, "--search-space", "none.toml"), "--search-space none.toml: no such file"),
        ((*BASE[:-1], "a" * 33, *DATA), "at most 32"),
        ((*BASE, *DATA, "--spot", "--max-wait", "99"), "--max-wait 99 is less than --max-run 3600"),
        (BASE, "no --data"),
        (("--attach", "a", "--trials", "3"), "--attach is for a search that exists, and --trials for a new one"),
        (("--stop", "a", "--local"), "--stop is for a search that exists"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], calls: list[str], arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert words in err.splitlines()[-1]
    assert calls == []


# --- against moto


def summary(number: int, status: str, lr: float, batch: int, value: float | None, **more: Any) -> dict[str, Any]:
    """Of ListTrainingJobsForHyperParameterTuningJob."""
    name = f"{NAME}-{number:03d}-0a1b2c3d"
    objective = {} if value is None else {"FinalHyperParameterTuningJobObjectiveMetric":
                                          {"MetricName": "valid_accuracy", "Value": value}}  # fmt: skip
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}",
        "CreationTime": START,
        "TrainingStartTime": START,
        "TrainingEndTime": START + timedelta(seconds=90),
        "TrainingJobStatus": status,
        "TunedHyperParameters": {"lr": str(lr), "batch-size": f'"{batch}"'},
        **objective,
        **more,
    }


TRIALS = [
    summary(1, "Completed", 0.01, 32, 0.55),
    summary(2, "Completed", 0.001, 64, 0.6),
    summary(3, "Failed", 0.1, 32, None, FailureReason="AlgorithmError: the loss became nan"),
    summary(4, "Stopped", 0.05, 32, 0.2),
]


def described_search(status: str, **more: Any) -> dict[str, Any]:
    """DescribeHyperParameterTuningJob's answer."""
    static = {**DEFINITION["StaticHyperParameters"], "_tuning_objective_metric": "valid_accuracy"}
    return {
        "HyperParameterTuningJobName": NAME,
        "HyperParameterTuningJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:hyper-parameter-tuning-job/{NAME}",
        "HyperParameterTuningJobConfig": CONFIGURATION,
        "TrainingJobDefinition": DEFINITION | {"StaticHyperParameters": static},
        "HyperParameterTuningJobStatus": status,
        "CreationTime": START,
        "TrainingJobStatusCounters": {},
        "ObjectiveStatusCounters": {},
        **more,
    }


@pytest.mark.usefixtures("image")
def test_a_search_from_its_creation_to_its_end(
    aws: boto3.Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[str],
) -> None:
    pictures = trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})
    running, ended = described_search("InProgress"), described_search("Completed")
    give(monkeypatch, "DescribeHyperParameterTuningJob", PASS, running, running, ended)
    give(
        monkeypatch,
        "ListTrainingJobsForHyperParameterTuningJob",
        {"TrainingJobSummaries": []},
        {"TrainingJobSummaries": [summary(1, "InProgress", 0.01, 32, None)]},
        {"TrainingJobSummaries": TRIALS},
    )
    values = [(1, 0.5, 0.8, 0.4, 0.5, 100.0), (2, 0.5, 0.8, 0.4, 0.6, 100.0)]
    logged = [line(name, value) for epoch in values for name, value in zip(NAMES, epoch, strict=False)]
    write_log(
        aws, "data: 3 classes, 30 train, 60 valid, 12 test", *logged, stream=f"{TRIALS[1]['TrainingJobName']}/algo-1-1"
    )
    out = tmp_path / "results"
    code, shown, err = call(
        capsys, *BASE[:2], "--data", pictures, "--name", NAME, "--results", out, "--parallel", "2", "--weights", "none"
    )
    assert code == 0, err
    assert calls.index("s3:PutObject") < calls.index("sagemaker:CreateHyperParameterTuningJob")
    made = aws.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=NAME)
    assert made["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"] == 2
    assert "20 trials, each stopped after 1 h (--max-run), 14.73 USD at most in all" in err
    assert "trial 0: running, lr 0.01, batch-size 32" in err
    assert (
        "trial 1: completed (4 of 20 done), lr 0.001, batch-size 64: valid_accuracy 0.6, the best so far (90 s)" in err
    )
    assert "AlgorithmError: the loss became nan" in err
    rows = [row.split() for row in shown.splitlines()[2:]]
    assert [row[:5] for row in rows][1] == ["1", "completed", "0.001", "64", "0.6"]
    assert rows[1][-1] == "best"
    best = json.loads((out / NAME / "best.json").read_text())
    assert best["hyperparameters"] == {"epochs": "2", "lr": "0.001", "batch-size": "64"}
    page = (out / NAME / "tuning-report.html").read_text()
    assert "chart-curves-valid_accuracy" in page
    assert "One of 60 validation images is 1.7 points: the best trial predicts 36 correctly" in page
    assert f"<code>scripts/train.py --from-tuning {NAME} --region {REGION} --image URI --data S3</code>" in page
    assert f"next: scripts/train.py --from-tuning {NAME} --region {REGION}" in err


@pytest.mark.usefixtures("aws")
def test_a_search_without_a_completed_trial_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    give(monkeypatch, "DescribeHyperParameterTuningJob", described_search("Failed", FailureReason="all have failed"))
    give(monkeypatch, "ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": TRIALS[2:3]})
    code, _, err = call(capsys, "--attach", NAME, "--results", tmp_path, "--train-best")
    assert code == 1
    assert f"{NAME} has ended as Failed: all have failed" in err
    assert "the loss became nan" in err.splitlines()[-1]


@pytest.mark.usefixtures("aws")
def test_the_final_training_has_the_trials_definition_and_the_best_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, aws: boto3.Session,
    flaky: FlakyAws,
) -> None:  # fmt: skip
    flaky.break_after("CreateTrainingJob")
    spot = {
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/byoc/{NAME}/checkpoints"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
        "Environment": {"BYOC_IMAGE": IMAGE, "BYOC_OWN_CHECKPOINTS": "1"},
    }
    found = described_search("Completed")
    found["TrainingJobDefinition"] |= spot
    give(monkeypatch, "DescribeHyperParameterTuningJob", found)
    give(monkeypatch, "ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": TRIALS})
    code, _, err = call(capsys, "--attach", NAME, "--results", tmp_path, "--train-best")
    assert code == 0, err
    (job,) = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    name = job["TrainingJobName"]
    assert re.fullmatch(r"byoc-train-\d{8}-\d{6}-[0-9a-f]{4}", name)
    made = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert made["HyperParameters"] == {"epochs": "2", "lr": "0.001", "batch-size": "64"}
    assert made["InputDataConfig"] == DEFINITION["InputDataConfig"]
    assert made["ResourceConfig"] == DEFINITION["HyperParameterTuningResourceConfig"]
    assert made["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/byoc/{name}/checkpoints"}
    request = tuning_jobs.training_request(tuning_jobs.describe(Aws(REGION), NAME), "a", [])  # moto keeps none
    assert request.request["Environment"] == {"BYOC_IMAGE": IMAGE}
    assert request.request["AlgorithmSpecification"]["MetricDefinitions"] == DEFINITIONS


@pytest.mark.usefixtures("aws")
def test_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    give(monkeypatch, "DescribeHyperParameterTuningJob", described_search("InProgress"))
    give(monkeypatch, "StopHyperParameterTuningJob", {})
    code, out, _ = call(capsys, "--stop", NAME, "--json")
    assert code == 0
    assert json.loads(out) == {"name": NAME, "status": "Stopping"}
    assert "sagemaker:StopHyperParameterTuningJob" in calls
    calls.clear()
    give(monkeypatch, "DescribeHyperParameterTuningJob", described_search("Completed"))
    code, _, err = call(capsys, "--stop", NAME)
    assert "has ended already: Completed" in err
    assert calls == ["sagemaker:DescribeHyperParameterTuningJob"]


# --- what other scripts make of a search


def test_train_from_a_search_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"hyperparameters": {"epochs": "2", "lr": "0.02"}}))
    job = ("--image", IMAGE, "--region", REGION, "--role", ROLE, *DATA, "--dry-run")
    code, out, _ = call(capsys, *job, "--from-tuning", tmp_path, "--epochs", "9", script=train)
    assert code == 0
    assert json.loads(out)[0]["request"]["HyperParameters"] == {"epochs": "9", "lr": "0.02"}
    code, _, err = call(capsys, "--local", "--data", "sample", "--from-tuning", "nowhere", script=train)
    assert code == 2
    assert "--from-tuning nowhere is no search on this machine" in err.splitlines()[-1]


@pytest.mark.usefixtures("aws")
def test_train_from_a_search_in_the_cloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, "DescribeHyperParameterTuningJob", described_search("Completed"))
    give(monkeypatch, "ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": TRIALS})
    flags = train.parser().parse_args(["--from-tuning", NAME])
    assert train._found(flags) == {"epochs": "2", "lr": "0.001", "batch-size": "64"}


def test_a_dry_run_asks_no_account_for_a_search(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    job = ("--image", IMAGE, "--region", REGION, "--role", ROLE, *DATA, "--dry-run")
    code, out, err = call(capsys, *job, "--from-tuning", NAME, "--lr", "0.5", script=train)
    assert (code, calls) == (0, [])
    assert json.loads(out)[0]["request"]["HyperParameters"] == {"lr": "0.5"}
    assert f"the best values of {NAME} are not in these requests" in err


def test_cleanup_lists_and_stops_searches(
    aws: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    client = aws.client("sagemaker")
    client.create_hyper_parameter_tuning_job(**PLAIN)
    arn = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=NAME)["HyperParameterTuningJobArn"]
    listed = {
        "HyperParameterTuningJobName": NAME, "HyperParameterTuningJobArn": arn, "CreationTime": START,
        "HyperParameterTuningJobStatus": "InProgress", "Strategy": "Bayesian",
        "TrainingJobStatusCounters": {"Completed": 3}, "ObjectiveStatusCounters": {},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 1},
    }  # fmt: skip
    one: dict[str, Any] = {"HyperParameterTuningJobSummaries": [listed]}
    none: dict[str, Any] = {"HyperParameterTuningJobSummaries": []}
    give(monkeypatch, "ListHyperParameterTuningJobs", one, none, one, none)
    give(monkeypatch, "StopHyperParameterTuningJob", {})
    code, out, _ = call(capsys, script=cleanup)
    assert code == 0
    assert re.search(rf"tuning job +{NAME} +InProgress .* 3 of 20 trials completed", out)
    code, _, err = call(capsys, "--jobs", "--yes", script=cleanup)
    assert code == 0, err
    assert f"stopping tuning job {NAME}" in err
    assert "sagemaker:StopHyperParameterTuningJob" in calls
