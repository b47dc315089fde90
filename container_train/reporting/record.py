"""All that a job has written about itself, brought into one form; what is missing or half written is left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from container_train.hyperparameters import defaults
from container_train.monitoring import findings
from container_train.monitoring.findings import Finding
from container_train.profiler import store
from container_train.profiler.store import Floats, Phase, Steps
from container_train.reporting import usage
from container_train.reporting.usage import Clock, Usage, clock
from container_train.training.recipes import RECIPES

EPOCH = (
    "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "valid_macro_f1", "images_per_second", "time",
)  # fmt: skip
RULES = "rules.json"
TERMINAL = {"completed", "stopped", "failed"}


@dataclass(frozen=True)
class Record:
    """`final`: no more `rules` will come. `service`: the files are those of the service's profiler."""

    out: Path
    job: dict[str, Any]
    metrics: dict[str, Any]
    rules: list[Finding]
    final: bool
    phases: list[Phase]
    steps: Steps
    epochs: list[dict[str, Any]]
    gradients: dict[str, dict[str, list[float]]]
    losses: dict[str, list[float]]  # of the training steps whose tensors were saved
    usage: Usage
    clock: Clock
    problems: list[str]  # what went wrong in debugger and profiler
    service: bool
    hyperparameters: dict[str, str]
    head_epochs: int  # of a recipe's first stage, before those whose steps are counted and watched
    epochs_asked: int  # of all stages; 0 if it is not known
    step_seconds: Floats  # of the steps of the last stage; before it began, of the first
    steps_per_epoch: float  # NaN if it is not known

    @property
    def name(self) -> str:
        return str(self.job.get("job") or "") or "training job"

    def __bool__(self) -> bool:
        seen = self.job, self.metrics, self.rules, self.phases, any(self.usage.values())
        return len(self.steps) > 0 or any(seen)


def number(value: object) -> float:
    """A number of JSON as it is, NaN for everything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def table(value: object) -> dict[str, Any]:
    """An object of JSON as it is, {} for everything else."""
    return value if isinstance(value, dict) else {}


def read(out: Path, *, over: bool = False, machine: bool = True) -> Record:
    """Return what is in `out`, a job's /opt/ml/output/data or the service's profiler output.

    `over`: it has ended; without `machine` the samples of the system, which take longest to read, are left out.
    """
    files = "metrics.json", RULES, "profiler/tensors.json"
    job, (metrics, said, tensors) = store.job(out), (store.read_object(out / name) for name in files)
    timeline, system = store.timeline(out), store.system(out) if machine else store.System({})
    epochs = {
        int(row["epoch"]): {"epoch": int(row["epoch"]), **{key: number(row.get(key)) for key in EPOCH}}
        for row in [*metrics.get("epochs", []), *timeline.epochs]
        if number(row.get("epoch")) >= 1
    }
    samples = [series for what in (store.CPU, store.GPU) for series in list(system.series(what).values())[:1]]
    ticks = clock(timeline, samples, [job.get("started"), job.get("ended"), *(row["time"] for row in epochs.values())])
    hyperparameters = table(job.get("hyperparameters")) or table(metrics.get("hyperparameters"))
    if hyperparameters and metrics.get("weights"):
        # A file that was given takes precedence over the hyperparameter.
        hyperparameters = {**hyperparameters, "weights": metrics["weights"]}
    head, asked = (
        int(given) if (given := str(hyperparameters.get(name, ""))).isdecimal() else 0
        for name in ("head-epochs", "epochs")
    )
    last, every = timeline.steps.total[timeline.steps.epoch > head], number(job.get("steps_per_epoch"))
    return Record(
        out=out,
        job=job,
        metrics=metrics,
        rules=rules(out),
        final=over or said.get("final") is True,
        # One that has not ended lasts as long as there are signs of life.
        phases=[replace(p, end=max(p.end, ticks.end)) if p.goes_on else p for p in timeline.phases],
        steps=timeline.steps,
        epochs=[epochs[key] for key in sorted(epochs)],
        gradients={name: _numbers(columns) for name, columns in tensors.get("gradients", {}).items()},
        losses=_numbers(tensors.get("losses", {}).get("train", {"step": [], "value": []})),
        usage=usage.measure(system, ticks),
        clock=ticks,
        problems=[str(words) for file in (job, said) for words in file.get("problems") or ()],
        service=not job and bool(system.metrics),
        hyperparameters={str(key): str(value) for key, value in hyperparameters.items()},
        head_epochs=head,
        epochs_asked=asked and head + asked,
        step_seconds=last if len(last) else timeline.steps.total,
        steps_per_epoch=every if every >= 1 else math.nan,
    )


def settings(given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hyperparameters that are not the defaults of their recipe, and those that are."""
    recipe = str(given.get("recipe", "head"))
    usual = {**defaults(recipe if recipe in RECIPES else "head"), "recipe": "head"}
    words = {key: str(value) for key, value in given.items()}
    same = {key: value for key, value in words.items() if value == str(usual.get(key, ""))}
    return {key: value for key, value in words.items() if key not in same}, same


def rules(out: Path) -> list[Finding]:
    """Return what the rules have found so far."""
    return [findings.from_json(row) for row in store.read_object(out / RULES).get("rules", [])]


def _numbers(columns: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    return {name: [number(item) for item in items] for name, items in columns.items()}
