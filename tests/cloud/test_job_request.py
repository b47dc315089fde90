"""The requests that are built without the SDK are those that the SDK builds."""

from dataclasses import replace
from typing import Any

import pytest

from container_train.training.metrics import DEFINITIONS
from scripts.aws import names
from scripts.aws.requests import Request, check
from scripts.jobs import job_request, sdk
from scripts.jobs.training_jobs import TrainingJobSpec
from scripts.tuning import space, tuning_request
from scripts.tuning.space import Choice, Range
from scripts.tuning.tuning_jobs import TuningJobSpec
from tests.cloud.conftest import ACCOUNT, REGION, ROLE

PLAIN = TrainingJobSpec(
    name="byoc-job",
    image=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-train:1",
    role=ROLE,
    region=REGION,
    channels={split: f"s3://pictures/pets/{split}/" for split in ("train", "valid", "test")},
    hyperparameters={"epochs": "3"},
    output="s3://results/byoc",
    instance_type="ml.g4dn.xlarge",
)
FULL = replace(
    PLAIN,
    channels={**PLAIN.channels, "weights": "s3://pictures/weights/resnet50.pth"},
    environment={"A": "b c=d"},
    tags={"byoc-project": "byoc", "team": "vision"},
    instance_count=2,
    volume_size=50,
    max_run=3600,
    max_wait=7200,
    checkpoints="s3://results/checkpoints",
    input_mode="FastFile",
    isolated=True,
    subnets=("subnet-1", "subnet-2"),
    security_groups=("sg-1",),
    output_kms_key="alias/output",
    volume_kms_key="volume",
)


@pytest.mark.parametrize("spec", [PLAIN, FULL, replace(PLAIN, keep_alive=600)], ids=("plain", "full", "warm pool"))
def test_a_training_job(spec: TrainingJobSpec) -> None:
    built = job_request.training_request(spec)
    assert built == sdk.training_request(spec)
    check(Request("sagemaker", "CreateTrainingJob", built))


SPACE = space.load(space.FILE)
SEARCHES = {
    "plain": TuningJobSpec("byoc-tune", PLAIN, SPACE, "bayesian", 20, 2, 3),
    "full": TuningJobSpec("byoc-tune", FULL, SPACE, "random", 20, 2, 9, True, ("one", "another"), "transfer"),
    "grid": TuningJobSpec("byoc-tune", PLAIN, SPACE, "grid", 10, 1, 3),
    "hyperband": TuningJobSpec(
        "byoc-tune",
        replace(PLAIN, hyperparameters={}),
        replace(SPACE, searched={"epochs": Range(2, 9, False, True), "lr": Range(0.001, 0.1, True, False)}),
        "hyperband", 20, 2, 9, warm_start=("one",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_tuning_job(search: TuningJobSpec) -> None:
    built = tuning_request.build(search)
    assert built == by_the_sdk(search)
    check(Request("sagemaker", "CreateHyperParameterTuningJob", built))


def by_the_sdk(wanted: TuningJobSpec) -> dict[str, Any]:
    from sagemaker import parameter, tuner

    def of(part: Range | Choice) -> Any:
        if isinstance(part, Choice):
            return parameter.CategoricalParameter([str(value) for value in part.values])
        kind = parameter.IntegerParameter if part.whole else parameter.ContinuousParameter
        return kind(part.low, part.high, scaling_type="Logarithmic" if part.logarithmic else "Linear")

    searched = wanted.space.discrete() if wanted.strategy == "grid" else wanted.space
    kinds = tuner.WarmStartTypes
    kind = kinds.TRANSFER_LEARNING if wanted.warm_start_type == "transfer" else kinds.IDENTICAL_DATA_AND_ALGORITHM
    hyperband = tuner.StrategyConfig(tuner.HyperbandStrategyConfig(max_resource=wanted.epochs, min_resource=1))
    recorder = sdk.Recorder(sdk.offline(REGION), "results")
    made = tuner.HyperparameterTuner(
        sdk._estimator(wanted.trial, recorder),
        objective_metric_name=searched.objective,
        objective_type="Maximize" if searched.maximises else "Minimize",
        hyperparameter_ranges={name: of(part) for name, part in searched.searched.items()},
        metric_definitions=DEFINITIONS,
        strategy=wanted.strategy.capitalize(),
        strategy_config=hyperband if wanted.strategy == "hyperband" else None,
        max_jobs=wanted.trials,
        max_parallel_jobs=wanted.parallel,
        early_stopping_type="Auto" if wanted.early_stopping else "Off",
        warm_start_config=tuner.WarmStartConfig(kind, set(wanted.warm_start)) if wanted.warm_start else None,
        tags=names.tag_list(wanted.trial.tags),
    )
    made.fit(sdk._inputs(wanted.trial), job_name=wanted.name, wait=False)
    (request,) = recorder.requests
    if "WarmStartConfig" in request:  # made of a set
        request["WarmStartConfig"]["ParentHyperParameterTuningJobs"].sort(key=str)
    return request
