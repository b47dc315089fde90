"""The request that creates a tuning job, as the SageMaker SDK's HyperparameterTuner would build it, without the SDK."""

from typing import Any

from scripts.aws import names
from scripts.jobs import job_request
from scripts.tuning.space import Choice, Range
from scripts.tuning.tuning_jobs import TuningJobSpec

_WARM_START = {"identical": "IdenticalDataAndAlgorithm", "transfer": "TransferLearning"}


def build(wanted: TuningJobSpec) -> dict[str, Any]:
    """Return CreateHyperParameterTuningJob."""
    space = wanted.space.discrete() if wanted.strategy == "grid" else wanted.space
    configuration: dict[str, Any] = {
        "Strategy": wanted.strategy.capitalize(),
        "ResourceLimits": {"MaxNumberOfTrainingJobs": wanted.trials, "MaxParallelTrainingJobs": wanted.parallel},
        "TrainingJobEarlyStoppingType": "Auto" if wanted.early_stopping else "Off",
        "HyperParameterTuningJobObjective": {
            "Type": "Maximize" if space.maximises else "Minimize",
            "MetricName": space.objective,
        },
        "ParameterRanges": {f"{kind}ParameterRanges": [] for kind in ("Continuous", "Categorical", "Integer")},
    }
    for name, part in space.searched.items():
        kind, limits = _range(part)
        configuration["ParameterRanges"][f"{kind}ParameterRanges"].append({"Name": name, **limits})
    if wanted.strategy == "hyperband":
        resources = {"MinResource": 1, "MaxResource": wanted.epochs}
        configuration["StrategyConfig"] = {"HyperbandStrategyConfig": resources}
    request: dict[str, Any] = {
        "HyperParameterTuningJobName": wanted.name,
        "HyperParameterTuningJobConfig": configuration,
        "TrainingJobDefinition": {
            "StaticHyperParameters": dict(wanted.trial.hyperparameters),
            "HyperParameterTuningResourceConfig": job_request.resources(wanted.trial),
            **job_request.definition(wanted.trial),
        },
        "Tags": names.tag_list(wanted.trial.tags),
    }
    if wanted.warm_start:
        parents = [{"HyperParameterTuningJobName": name} for name in sorted(wanted.warm_start)]
        kind = _WARM_START[wanted.warm_start_type]
        request["WarmStartConfig"] = {"WarmStartType": kind, "ParentHyperParameterTuningJobs": parents}
    return request


def _range(part: Range | Choice) -> tuple[str, dict[str, Any]]:
    """Return the kind of range, and its limits as the service takes them: strings."""
    if isinstance(part, Choice):
        return "Categorical", {"Values": [str(value) for value in part.values]}
    scaling = "Logarithmic" if part.logarithmic else "Linear"
    limits = {"MinValue": str(part.low), "MaxValue": str(part.high), "ScalingType": scaling}
    return "Integer" if part.whole else "Continuous", limits
