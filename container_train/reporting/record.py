"""All that a job has written about itself, brought into one form; whatever is missing or half written is left out."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from container_train.profiler import service, store
from container_train.profiler.store import Phase, Steps, Timeline
from container_train.reporting import usage
from container_train.reporting.clock import Clock, clock
from container_train.reporting.usage import Usage

EPOCH = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "images_per_second", "time")
TERMINAL = {"completed", "stopped", "failed"}


@dataclass(frozen=True)
class Record:
    """`rules` are Findings as dicts; `final`: no more of them will come; `generated`: when they were made."""

    out: Path
    job: dict[str, Any]
    metrics: dict[str, Any]
    rules: list[dict[str, Any]]
    final: bool
    generated: float
    timeline: Timeline
    gradients: dict[str, dict[str, list[float]]]
    losses: dict[str, dict[str, list[float]]]
    usage: Usage
    clock: Clock
    service: bool = False  # the files are those of the service's profiler
    hyperparameters: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> Steps:
        return self.timeline.steps

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return self.timeline.epochs

    @property
    def name(self) -> str:
        return str(self.job.get("job") or "") or "training job"

    @property
    def steps_per_epoch(self) -> float:
        given = number(self.job.get("steps_per_epoch"))
        return given if given >= 1 else math.nan

    def __bool__(self) -> bool:
        return bool(self.job or self.metrics or self.rules or len(self.steps) or self.timeline.phases or self.usage)


def number(value: object) -> float:
    """A number of JSON as it is, NaN for everything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def table(value: object) -> dict[str, Any]:
    """An object of JSON as it is, {} for everything else."""
    return value if isinstance(value, dict) else {}


def read(out: Path, *, over: bool = False) -> Record:
    """What a job left in `out`, its /opt/ml/output/data or the service's profiler output. `over`: it has ended."""
    job, metrics, said = table(store.job(out)), _json(out / "metrics.json"), _json(out / "rules.json")
    tensors = _json(out / "profiler" / "tensors.json")
    timeline = store.timeline(out)
    foreign = service.timeline(out) if not timeline.phases and not len(timeline.steps) else None
    if foreign is not None:
        timeline = foreign
    epochs = {
        int(row["epoch"]): {"epoch": int(row["epoch"]), **{key: number(row.get(key)) for key in EPOCH}}
        for row in [*_rows(metrics.get("epochs")), *map(table, timeline.epochs)]
        if number(row.get("epoch")) >= 1
    }
    timeline = Timeline(_with_steps(timeline), timeline.steps, [epochs[key] for key in sorted(epochs)])
    system = store.system(out)
    samples = list(usage.select(system, store.CPU).values())[:1] + list(usage.select(system, store.GPU).values())[:1]
    ticks = clock(timeline, samples, [when for key in ("started", "ended") if (when := number(job.get(key))) > 0])
    if job and not job.get("sampler"):
        job["sampler"] = _json(out / "profiler" / "sampler.json")
    hyperparameters = table(job.get("hyperparameters")) or table(metrics.get("hyperparameters"))
    timeline = replace(timeline, phases=_going_on(timeline.phases, ticks.end))
    return Record(
        out=out,
        job=job,
        metrics=metrics,
        rules=[row for row in _rows(said.get("rules")) if row.get("rule") and row.get("status")],
        final=over or said.get("final") is True,
        generated=number(said.get("generated")),
        timeline=timeline,
        gradients=_series(tensors.get("gradients"), ("step", "norm")),
        losses=_series(tensors.get("losses"), ("step", "value")),
        usage=usage.measure(system, ticks),
        clock=ticks,
        service=not job and (foreign is not None or bool(system.rows)),
        hyperparameters={str(key): str(value) for key, value in hyperparameters.items()},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return table(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}


def _rows(value: object) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _series(value: object, columns: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """name -> column -> numbers, all columns of a name equally long."""
    result = {}
    for name, series in table(value).items():
        lists = [table(series).get(column) for column in columns]
        if all(isinstance(items, list) for items in lists):
            length = min(len(items) for items in lists if isinstance(items, list))
            result[str(name)] = {
                column: [number(item) for item in (items or [])[:length]]
                for column, items in zip(columns, lists, strict=True)
            }
    return result


def _going_on(phases: list[Phase], until: float) -> list[Phase]:
    """A phase that has not ended lasts as long as there are signs of life."""
    return [replace(phase, end=max(phase.end, until)) if phase.goes_on else phase for phase in phases]


def _with_steps(timeline: Timeline) -> list[Phase]:
    """The phases, and one for steps that lie in none: the training of a job that had no time to say that it ended."""
    steps, phases = timeline.steps, timeline.phases
    if not len(steps) or any(phase.name == "train" for phase in phases):
        return phases
    end = float((steps.start + steps.total * steps.weight)[-1])
    return sorted([*phases, Phase("train", float(steps.start[0]), end)], key=lambda phase: (phase.start, -phase.end))
