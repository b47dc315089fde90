"""tune.py in the cloud: the requests it makes, and a search followed, stopped, and trained from."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session

from container_train.training.metrics import DEFINITIONS, NAMES, line
from scripts import cleanup, train, tune
from scripts.jobs.watch import LOG_GROUP
from tests import trees
from tests.cloud.answers import PASS, give
from tests.cloud.conftest import ACCOUNT, BUCKET, HERE, REGION, TRAIN_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import write_log
from tests.cloud.test_train import EVERYTHING
from tests.cloud.test_train import PLAIN as JOB
from tests.conftest import Patch

NAME = "byoc-search-1"
DATA = ("--data", "s3://my-data/dogs")
NAMELESS = ("--image", TRAIN_IMAGE, *HERE, *DATA, "--dry-run")
DRY = (*NAMELESS, "--name", NAME)
START = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)


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


def test_the_plain_request(call: Call, calls: list[str]) -> None:
    assert call(tune, *DRY).json == [
        {"service": "sagemaker", "operation": "CreateHyperParameterTuningJob", "request": PLAIN}
    ]
    assert calls == []
    (shown,) = call(tune, *NAMELESS, "--project", "byoc-a-long-project-name").json
    name = shown["request"]["HyperParameterTuningJobName"]
    assert re.fullmatch(r"byoc-a-long-\d{8}-\d{6}-[0-9a-f]{4}", name), name


def test_the_request_with_everything(call: Call) -> None:
    """A trial is the job of the same flags."""
    of_both = [*EVERYTHING, "--epochs", "5"]
    for flag in ("--instance-count", "--checkpoints", "--batch_size"):
        del of_both[of_both.index(flag) : of_both.index(flag) + 2]
    search = ("--trials", "40", "--parallel", "4", "--early-stopping", "--warm-start", "byoc-b,byoc-a")
    (shown,) = call(tune, *DRY, *search, "--warm-start-type", "transfer", *of_both).json
    job = call(train, *DRY, *of_both).json[0]["request"]
    for key in ("TrainingJobName", "ProfilerConfig"):
        del job[key]
    parents = [{"HyperParameterTuningJobName": "byoc-a"}, {"HyperParameterTuningJobName": "byoc-b"}]
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
        "WarmStartConfig": {"WarmStartType": "TransferLearning", "ParentHyperParameterTuningJobs": parents},
    }


HYPERBAND = {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}}}
GRID = {
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 10},
    "ParameterRanges": {
        "ContinuousParameterRanges": [],
        "CategoricalParameterRanges": [
            {"Name": "lr", "Values": ["0.001", "0.003162", "0.01", "0.03162", "0.1"]},
            {"Name": "batch-size", "Values": ["32", "64"]},
        ],
        "IntegerParameterRanges": [],
    },
}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (("random",), {"Strategy": "Random"}),
        (("hyperband", "--epochs", "9"), {"Strategy": "Hyperband", **HYPERBAND}),
        (("grid", "--parallel", "10"), {"Strategy": "Grid", **GRID}),
    ],
)
def test_strategies(call: Call, arguments: tuple[str, ...], changed: dict[str, Any]) -> None:
    (shown,) = call(tune, *DRY, "--strategy", *arguments).requests
    assert shown["HyperParameterTuningJobConfig"] == CONFIGURATION | changed


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


def give_search(monkeypatch: Patch, *answers: dict[str, Any] | None, trials: Any = TRIALS) -> None:
    give(monkeypatch, "DescribeHyperParameterTuningJob", *answers)
    give(monkeypatch, "ListTrainingJobsForHyperParameterTuningJob", {"TrainingJobSummaries": trials})


@pytest.mark.usefixtures("image")
def test_a_search_from_its_creation_to_its_end(
    aws: Session, tmp_path: Path, monkeypatch: Patch, call: Call, calls: list[str]
) -> None:
    pictures = trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})
    running, ended = described_search("InProgress"), described_search("Completed")
    give(monkeypatch, "DescribeHyperParameterTuningJob", PASS, running, running, ended)
    lists: list[list[Any]] = [[], [summary(1, "InProgress", 0.01, 32, None)], TRIALS]
    pages = [{"TrainingJobSummaries": trials} for trials in lists]
    give(monkeypatch, "ListTrainingJobsForHyperParameterTuningJob", *pages)
    values = [(1, 0.5, 0.8, 0.4, 0.5, 100.0), (2, 0.5, 0.8, 0.4, 0.6, 100.0)]
    logged = [line(name, value) for epoch in values for name, value in zip(NAMES, epoch, strict=False)]
    stream = f"{TRIALS[1]['TrainingJobName']}/algo-1-1"
    write_log(aws, LOG_GROUP, stream, "data: 3 classes, 30 train, 60 valid, 12 test", *logged)
    out = tmp_path / "results"
    job = ("--image", TRAIN_IMAGE, "--data", pictures, "--name", NAME, "--weights", "none")
    done = call(tune, *job, "--results", out, "--parallel", "2").says(
        "20 trials, each stopped after 1 h (--max-run), 14.73 USD at most",
        "trial 0: running, lr 0.01, batch-size 32",
        "trial 1: completed (4 of 20 done), lr 0.001, batch-size 64: valid_accuracy 0.6, the best so far (90 s)",
        "AlgorithmError: the loss became nan",
        f"next: scripts/train.py --from-tuning {NAME} --region {REGION}",
    )
    assert calls.index("s3:PutObject") < calls.index("sagemaker:CreateHyperParameterTuningJob")
    made = aws.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=NAME)
    assert made["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"] == 2
    row = done.out.splitlines()[3].split()
    assert (row[:5], row[-1]) == (["1", "completed", "0.001", "64", "0.6"], "best")
    best = json.loads((out / NAME / "best.json").read_text())
    assert best["hyperparameters"] == {"epochs": "2", "lr": "0.001", "batch-size": "64"}
    page = (out / NAME / "tuning-report.html").read_text()
    assert "chart-curves-valid_accuracy" in page
    assert "The 95 % interval on 60 validation images is" in page
    assert f"<code>scripts/train.py --from-tuning {NAME} --region {REGION} --image URI --data S3</code>" in page


@pytest.mark.usefixtures("aws")
def test_a_search_without_a_completed_trial_says_why(monkeypatch: Patch, call: Call, tmp_path: Path) -> None:
    give_search(monkeypatch, described_search("Failed", FailureReason="all have failed"), trials=TRIALS[2:3])
    ended = call(tune, "--attach", NAME, "--results", tmp_path, "--train-best")
    ended.ends(1, "the loss became nan")
    ended.says(f"{NAME} has ended as Failed: all have failed", code=1)


def test_the_final_training_has_the_trials_definition_and_the_best_values(
    monkeypatch: Patch, call: Call, tmp_path: Path, aws: Session, flaky: FlakyAws
) -> None:
    flaky.break_after("CreateTrainingJob")
    found = described_search("Completed")
    found["TrainingJobDefinition"] |= {
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/byoc/{NAME}/checkpoints"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
        "Environment": {"BYOC_IMAGE": TRAIN_IMAGE, "BYOC_OWN_CHECKPOINTS": "1"},
    }
    give_search(monkeypatch, found)
    ended = call(tune, "--attach", NAME, "--results", tmp_path, "--train-best")
    assert ended.code == 0, ended.err
    (job,) = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    name = job["TrainingJobName"]
    assert re.fullmatch(r"byoc-train-\d{8}-\d{6}-[0-9a-f]{4}", name)
    made = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert made["HyperParameters"] == {"epochs": "2", "lr": "0.001", "batch-size": "64"}
    assert made["InputDataConfig"] == DEFINITION["InputDataConfig"]
    assert made["ResourceConfig"] == DEFINITION["HyperParameterTuningResourceConfig"]
    assert made["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/byoc/{name}/checkpoints"}
    sent = flaky.requests["CreateTrainingJob"]  # moto keeps none of these
    assert sent["Environment"] == {"BYOC_IMAGE": TRAIN_IMAGE}
    assert sent["AlgorithmSpecification"]["MetricDefinitions"] == DEFINITIONS


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("status", "now"), [("InProgress", "Stopping"), ("Completed", "Completed")])
def test_stop(monkeypatch: Patch, call: Call, calls: list[str], status: str, now: str) -> None:
    give_search(monkeypatch, described_search(status))
    give(monkeypatch, "StopHyperParameterTuningJob", {})
    ended = call(tune, "--stop", NAME, "--json")
    assert (ended.code, ended.json) == (0, {"name": NAME, "status": now})
    stop = ["sagemaker:StopHyperParameterTuningJob"] if status == "InProgress" else []
    assert calls == ["sagemaker:DescribeHyperParameterTuningJob", *stop]


# --- what other scripts make of a search


@pytest.mark.usefixtures("aws")
def test_train_from_a_search(monkeypatch: Patch, call: Call, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"hyperparameters": {"epochs": "2", "lr": "0.02"}}))
    ended = call(train, *NAMELESS, "--from-tuning", tmp_path, "--epochs", "9")
    assert ended.json[0]["request"]["HyperParameters"] == {"epochs": "9", "lr": "0.02"}
    assert f"from {tmp_path}: --lr 0.02\n" in ended.err
    give_search(monkeypatch, described_search("Completed"))
    flags = train.parser().parse_args(["--from-tuning", NAME])
    assert train._found(flags) == {"epochs": "2", "lr": "0.001", "batch-size": "64"}


def test_no_account_is_asked_for_a_search(call: Call, calls: list[str]) -> None:
    ended = call(train, *NAMELESS, "--from-tuning", NAME, "--lr", "0.5")
    assert (ended.json[0]["request"]["HyperParameters"], calls) == ({"lr": "0.5"}, [])
    assert f"the best values of {NAME} are not in these requests" in ended.err
    ended = call(train, "--local", "--data", "sample", "--from-tuning", "nowhere")
    ended.ends(2, "--from-tuning nowhere is no search here")


def test_cleanup_lists_and_stops_searches(aws: Session, monkeypatch: Patch, call: Call, calls: list[str]) -> None:
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
    ended = call(cleanup)
    assert re.search(rf"tuning job +{NAME} +InProgress .* 3 of 20 trials completed", ended.out)
    call(cleanup, "--jobs", "--yes").says(f"stopping tuning job {NAME}")
    assert "sagemaker:StopHyperParameterTuningJob" in calls
