"""Findings of rules: the common form of the debugger's and the profiler's findings, and the parameters users give."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from container_train.errors import TrainError

Status = Literal["ok", "fired", "not_applicable", "waiting", "error"]
"""`waiting`: too little was seen so far; at the end of a job it becomes `not_applicable`."""


@dataclass(frozen=True)
class Evidence:
    """One time that a rule fired. `threshold` is what `value` was held against, in the same unit."""

    value: float
    threshold: float
    step: int | None = None
    mode: str | None = None
    tensor: str | None = None
    time: float | None = None  # seconds since 1970, where there is no step


@dataclass
class Finding:
    """The state of one rule. `reason` is one sentence, `advice` what one usually does about it."""

    rule: str
    kind: Literal["debugger", "profiler"]
    status: Status
    reason: str
    advice: str = ""
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    checked: int = 0
    fired: int = 0
    first: Evidence | None = None
    last: Evidence | None = None


def from_json(row: Mapping[str, Any]) -> Finding:
    """A Finding as rules.json holds it. Raises TypeError for a row that is none."""
    evidence = {key: Evidence(**row[key]) if row.get(key) else None for key in ("first", "last")}
    return Finding(**{**row, **evidence})


def parse_parameters(text: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`vanishing_gradient:threshold=1e-6,patience=2;overfit:...` -> {rule: {parameter: value}}.

    `known` are the rules with their parameters' defaults, whose types the values take. `none` and "" give {}.
    Raises TrainError naming the rule or parameter and those that exist.
    """
    result: dict[str, dict[str, Any]] = {}
    for part in text.split(";") if text not in ("", "none") else []:
        name, _, assignments = part.strip().partition(":")
        if name not in known:
            raise TrainError(f"hyperparameter rule: unknown rule {name!r}: known are {', '.join(known)}")
        values = result.setdefault(name, {})
        for assignment in filter(None, (word.strip() for word in assignments.split(","))):
            key, separator, value = assignment.partition("=")
            if key not in known[name]:
                have = ", ".join(known[name]) or "none"
                raise TrainError(f"hyperparameter rule: {name} has no parameter {key!r}: it has {have}")
            kind = type(known[name][key])
            try:
                values[key] = kind(value) if separator else kind()
                if not math.isfinite(values[key]) or (kind is int and values[key] < 0):
                    raise ValueError
            except ValueError:
                raise TrainError(
                    f"hyperparameter rule: {name}:{key} has value {value!r}: expected"
                    f" {'a whole number of at least 0' if kind is int else 'a number'}, such as {known[name][key]}"
                ) from None
    return result
