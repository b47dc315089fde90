"""Trials and the findings of a search, whether they ran in the cloud or here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from local_test.text import table
from scripts.tuning.space import Space, Value

Status = Literal["running", "completed", "pruned", "failed", "stopped"]
OVER: tuple[Status, ...] = ("completed", "pruned", "failed", "stopped")
Epoch = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """`value` is the objective's, None where the trial gave none; `epochs` the metrics of each epoch, as logged."""

    number: int
    name: str
    status: Status
    parameters: Mapping[str, Value]
    value: float | None = None
    epochs: Sequence[Epoch] = ()
    seconds: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "name": self.name,
            "status": self.status,
            "hyperparameters": dict(self.parameters),
            "value": self.value,
            "seconds": self.seconds,
            "reason": self.reason or None,
        }


@dataclass(frozen=True)
class Search:
    """A tuning job, or a study on this machine. `where` is for people: "eu-central-1", "this machine, ..."

    `images` of validation, 0 if it is not known; `command` trains with the best values.
    """

    name: str
    where: str
    strategy: str
    space: Space
    trials: Sequence[Trial] = ()
    seconds: float | None = None
    images: int = 0
    command: str = ""

    @property
    def best(self) -> Trial | None:
        """The completed trial with the best value, of equal ones the first."""
        rated = [trial for trial in self.trials if trial.status == "completed" and is_number(trial.value)]
        sign = 1 if self.space.maximises else -1
        return max(rated, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)

    def best_values(self) -> dict[str, Value]:
        """The hyperparameters of the best trial: what was found, and what was fixed. Empty without any."""
        return {} if self.best is None else {**self.space.fixed, **self.best.parameters}

    def hyperparameters(self) -> dict[str, str]:
        """The same as a job takes them."""
        return {name: str(value) for name, value in self.best_values().items()}

    def count(self, *statuses: Status) -> int:
        return sum(trial.status in statuses for trial in self.trials)

    def to_dict(self) -> dict[str, Any]:
        best = self.best
        return {
            "name": self.name,
            "where": self.where,
            "strategy": self.strategy,
            "objective": self.space.objective,
            "direction": self.space.direction,
            "best": None if best is None else best.to_dict() | {"hyperparameters": self.hyperparameters()},
            "trials": [trial.to_dict() for trial in self.trials],
            "seconds": None if self.seconds is None else round(self.seconds, 1),
        }


def is_number(value: float | None) -> bool:
    # A study's file that somebody changed may hold anything.
    return isinstance(value, int | float) and math.isfinite(value)


def words(value: Value | float | None) -> str:
    """A value for people: four digits of a fraction."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def heads(space: Space) -> list[str]:
    return ["trial", "status", *space.searched, space.objective, "epochs", "seconds", ""]


def row(trial: Trial, space: Space, best: Trial | None) -> list[str]:
    return [
        str(trial.number),
        trial.status,
        *(words(trial.parameters.get(name)) for name in space.searched),
        words(trial.value),
        str(len(trial.epochs) or ""),
        "" if trial.seconds is None else f"{trial.seconds:.0f}",
        "best" if best is not None and trial.number == best.number else trial.reason[:100],
    ]


def render(search: Search) -> str:
    """The table of all trials."""
    return table(heads(search.space), [row(trial, search.space, search.best) for trial in search.trials])
