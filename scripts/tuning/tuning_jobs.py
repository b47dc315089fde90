"""Tuning jobs: the request for one; and those that there are, found and read."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.aws import names, requests
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, one_line
from scripts.aws.requests import Request
from scripts.jobs import training_jobs
from scripts.jobs.training_jobs import IN_PROGRESS, TrainingJobSpec
from scripts.tuning.space import Choice, Range, Space, Value
from scripts.tuning.trials import Search, Status, Trial

NOUN = "HyperParameterTuningJob"  # in the names of the service's operations
MAX_RUN = 3600  # seconds of one trial, the default
_WARM_START = {"identical": "IdenticalDataAndAlgorithm", "transfer": "TransferLearning"}
_STATUS: dict[str, Status] = {
    "Completed": "completed",
    "Failed": "failed",
    "Stopped": "stopped",
    "Stopping": "running",
    "InProgress": "running",
}


@dataclass(frozen=True)
class TuningJob:
    """As the service describes it; `planned` is the number of trials."""

    name: str
    status: str
    failure: str
    planned: int
    definition: Mapping[str, Any]
    search: Search

    @property
    def in_progress(self) -> bool:
        return self.status in IN_PROGRESS


def creation(
    name: str, trial: TrainingJobSpec, space: Space, flags: argparse.Namespace, parents: Sequence[str]
) -> dict[str, Any]:
    """Return CreateHyperParameterTuningJob.

    `trial`: every trial's job, without what is searched; its name is ignored. `parents`: the searches of a warm start;
    `flags`: tune.py's other ones on the search.
    """
    discrete = space.discrete() if flags.strategy == "grid" else space
    configuration: dict[str, Any] = {
        "Strategy": flags.strategy.capitalize(),
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": flags.trials,
            "MaxParallelTrainingJobs": flags.parallel,
        },
        "TrainingJobEarlyStoppingType": "Auto" if flags.early_stopping else "Off",
        "HyperParameterTuningJobObjective": {
            "Type": "Maximize" if space.maximises else "Minimize",
            "MetricName": space.objective,
        },
        "ParameterRanges": {f"{kind}ParameterRanges": [] for kind in ("Continuous", "Categorical", "Integer")},
    }
    for parameter, part in discrete.searched.items():
        kind, limits = _limits(part)
        configuration["ParameterRanges"][f"{kind}ParameterRanges"].append({"Name": parameter, **limits})
    if flags.strategy == "hyperband":  # shares out the epochs of the longest trial
        resources = {"MinResource": 1, "MaxResource": space.most_epochs()}
        configuration["StrategyConfig"] = {"HyperbandStrategyConfig": resources}
    request: dict[str, Any] = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": configuration,
        "TrainingJobDefinition": {
            "StaticHyperParameters": dict(trial.hyperparameters),
            "HyperParameterTuningResourceConfig": training_jobs.resources(trial),
            **training_jobs.definition(trial),
        },
        "Tags": names.tag_list(trial.tags),
    }
    if parents:
        kind = _WARM_START[flags.warm_start_type or "identical"]
        jobs = [{"HyperParameterTuningJobName": parent} for parent in sorted(parents)]
        request["WarmStartConfig"] = {"WarmStartType": kind, "ParentHyperParameterTuningJobs": jobs}
    return request


def _limits(part: Range | Choice) -> tuple[str, dict[str, Any]]:
    """Return the kind of range, and its limits as the service takes them: strings."""
    if isinstance(part, Choice):
        return "Categorical", {"Values": [str(value) for value in part.values]}
    scaling = "Logarithmic" if part.logarithmic else "Linear"
    limits = {"MinValue": str(part.low), "MaxValue": str(part.high), "ScalingType": scaling}
    return "Integer" if part.whole else "Continuous", limits


def describe(aws: Aws, name: str) -> TuningJob:
    """Raises CloudError where there is no such tuning job."""
    client = aws.client("sagemaker")
    found = requests.need(aws, NOUN, name, "tuning job")
    pages = client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    summaries = [summary for page in pages for summary in page["TrainingJobSummaries"]]
    configuration = found["HyperParameterTuningJobConfig"]
    definition = found.get("TrainingJobDefinition")
    if not definition:
        raise CloudError(f"{name} was not made by these scripts: it has no one definition for all its trials")
    space = _space(configuration, definition)
    trials = [_trial(number, summary, space) for number, summary in enumerate(summaries)]
    ended = found.get("HyperParameterTuningEndTime")
    return TuningJob(
        name,
        found["HyperParameterTuningJobStatus"],
        one_line(found.get("FailureReason") or ""),
        configuration["ResourceLimits"].get("MaxNumberOfTrainingJobs", len(trials)),
        definition,
        Search(
            name,
            aws.region,
            configuration["Strategy"].lower(),
            space,
            trials,
            (ended - found["CreationTime"]).total_seconds() if ended else None,
        ),
    )


def training_request(job: TuningJob, name: str, tags: list[dict[str, str]]) -> Request:
    """CreateTrainingJob of a trial's own definition, with the best hyperparameters. Raises CloudError without any."""
    hyperparameters = job.search.hyperparameters()
    if not hyperparameters:
        raise CloudError(f"no trial of {job.name} was completed: there is nothing to train with")
    found = job.definition
    machine = found.get("HyperParameterTuningResourceConfig") or found["ResourceConfig"]
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "HyperParameters": hyperparameters,
        **{key: found[key] for key in OF_A_JOB if key in found},
        "ResourceConfig": {key: value for key, value in machine.items() if key in RESOURCES},
        "Environment": {k: v for k, v in found.get("Environment", {}).items() if k != OWN_CHECKPOINTS},
        "Tags": tags,
        "ProfilerConfig": {"DisableProfiler": True},
    }
    if "CheckpointConfig" in found:
        # Not the trials': there, others' checkpoints lie.
        home = found["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        request["CheckpointConfig"] = {**found["CheckpointConfig"], "S3Uri": f"{home}/{name}/checkpoints"}
    return Request("sagemaker", "CreateTrainingJob", request)


# What a trial's definition and a job's request call the same.
OF_A_JOB = (
    "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "VpcConfig", "StoppingCondition",
    "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining",
)  # fmt: skip
RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
# Says to the training program that other jobs may write to its checkpoint folder, too.
OWN_CHECKPOINTS = "BYOC_OWN_CHECKPOINTS"
# Hyperparameters of a search's trials, and not of what is trained afterwards.
TRIAL_OVERRIDES = {"debug": "off", "profile-interval": "0"}


def _space(configuration: Mapping[str, Any], definition: Mapping[str, Any]) -> Space:
    """The space as the request had it."""
    ranges = configuration.get("ParameterRanges", {})
    searched: dict[str, Range | Choice] = {}
    for kind, whole in (("ContinuousParameterRanges", False), ("IntegerParameterRanges", True)):
        for part in ranges.get(kind, ()):
            logarithmic = part.get("ScalingType") == "Logarithmic"
            searched[part["Name"]] = Range(float(part["MinValue"]), float(part["MaxValue"]), logarithmic, whole)
    for part in ranges.get("CategoricalParameterRanges", ()):
        searched[part["Name"]] = Choice(tuple(_value(text) for text in part["Values"]))
    objective = configuration["HyperParameterTuningJobObjective"]
    fixed = {
        name: value
        for name, value in definition.get("StaticHyperParameters", {}).items()
        if not name.startswith("_") and TRIAL_OVERRIDES.get(name) != value
    }
    direction = "maximise" if objective["Type"] == "Maximize" else "minimise"
    return Space(objective["MetricName"], direction, searched, fixed)  # type: ignore[arg-type]


def _trial(number: int, summary: Mapping[str, Any], space: Space) -> Trial:
    tuned = {name: _value(text.strip('"')) for name, text in summary.get("TunedHyperParameters", {}).items()}
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {})
    start, end = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    return Trial(
        number,
        summary["TrainingJobName"],
        _STATUS.get(summary["TrainingJobStatus"], "running"),
        {name: tuned[name] for name in [*space.searched, *tuned] if name in tuned},
        metric.get("Value"),
        (),
        (end - start).total_seconds() if start and end else None,
        one_line(summary.get("FailureReason") or ""),
    )


def _value(text: str) -> Value:
    """The service gives everything as text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
