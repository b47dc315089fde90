"""The search space: which hyperparameters are searched, over what, and for the sake of which metric."""

import argparse
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from container_train.command_line import guess
from container_train.errors import TrainError
from container_train.hyperparameters import OPTIONS, defaults
from scripts.aws.errors import CloudError
from scripts.console.command import toml

FILE = Path(__file__).resolve().parents[1] / "search_space.toml"
Value: TypeAlias = int | float | str
DIRECTIONS = ("maximise", "minimise")
# The metrics that say how good a setting is. A search that has seen the test images leaves nothing to measure with.
OBJECTIVES = ("valid_accuracy", "valid_macro_f1", "valid_loss", "train_accuracy", "train_loss")
MAX_VALUES = 30  # of a categorical one, in the service
POINTS = 5
# Of each kind: the keys that it needs, and others that it takes.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "continuous": (("low", "high"), ("scaling", "points")),
    "integer": (("low", "high"), ("scaling", "points")),
    "categorical": (("values",), ()),
    "fixed": (("value",), ()),
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    logarithmic: bool
    whole: bool
    points: int = POINTS

    def grid(self) -> tuple[Value, ...]:
        """`points` values, evenly spread on the scale; fewer where whole numbers coincide."""
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        steps = [low + (high - low) * index / (self.points - 1) for index in range(self.points)]
        values = [math.exp(step) if self.logarithmic else step for step in steps]
        values[0], values[-1] = self.low, self.high
        return tuple(dict.fromkeys(round(value) if self.whole else float(f"{value:.4g}") for value in values))

    def holds(self, value: Value) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    values: tuple[Value, ...]

    def grid(self) -> tuple[Value, ...]:
        return self.values

    def holds(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Space:
    """`searched` in the file's order; `fixed` are the same in every trial."""

    objective: str
    direction: Literal["maximise", "minimise"]
    searched: Mapping[str, Range | Choice]
    fixed: Mapping[str, Value]

    @property
    def maximises(self) -> bool:
        return self.direction == "maximise"

    @property
    def _defaults(self) -> dict[str, Any]:
        """Those of the recipe that all trials have."""
        return defaults(str(self.fixed.get("recipe", "head")))

    def most_epochs(self) -> int:
        """Of the longest trial."""
        part = self.searched.get("epochs")
        values = part.grid() if part else (self.fixed.get("epochs", self._defaults["epochs"]),)
        return max(int(value) for value in values)

    def default(self) -> dict[str, Value] | None:
        """The training program's own values, where they are in the space."""
        values: dict[str, Value] = {name: self._defaults[name] for name in self.searched}
        return values if all(self.searched[name].holds(value) for name, value in values.items()) else None

    def grid(self) -> list[dict[str, Value]]:
        """All combinations of the values that --strategy grid tries."""
        columns = [part.grid() for part in self.searched.values()]
        return [dict(zip(self.searched, row, strict=True)) for row in itertools.product(*columns)]

    def combinations(self) -> list[dict[str, Value]]:
        """Of the words that trials may get, with what is fixed: numbers of a range go with any of them."""
        parts = {name: part.values for name, part in self.searched.items() if isinstance(part, Choice)}
        words = {name: values for name, values in parts.items() if any(isinstance(value, str) for value in values)}
        return [{**self.fixed, **dict(zip(words, row, strict=True))} for row in itertools.product(*words.values())]

    def discrete(self) -> "Space":
        """The same with every range as the values of its grid."""
        return replace(self, searched={name: Choice(part.grid()) for name, part in self.searched.items()})

    def with_fixed(self, given: Mapping[str, str]) -> "Space":
        """`given`, of the command line, take precedence over the file's fixed ones.

        Raises CloudError for one that is searched.
        """
        for name in given:
            if name in self.searched:
                raise CloudError(f"--{name} is in the search space: leave it out here, or make it fixed in the file", 2)
        return replace(self, fixed={**self.fixed, **given})

    @property
    def digest(self) -> str:
        """Of all that makes the values of two trials comparable; `points` do not."""
        parts = {name: str(replace(part, points=0) if isinstance(part, Range) else part)
                 for name, part in self.searched.items()}  # fmt: skip
        text = json.dumps([self.objective, self.direction, parts, {k: str(v) for k, v in self.fixed.items()}])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path = FILE) -> Space:
    """Read and check the file. Raises CloudError: one line that names the file, the key, and what is expected."""
    content = toml(path, "--search-space")
    try:
        return _space(content)
    except ValueError as error:
        raise CloudError(f"{path.name}: {error}", 2) from None


def _space(content: Mapping[str, Any]) -> Space:
    """Raises ValueError, as all below."""
    _check_keys("the file", content, ("objective", "direction"), ("objective", "direction", "hyperparameters"))
    objective = content["objective"]
    _word("objective", objective, OBJECTIVES)
    direction = _word("direction", content["direction"], DIRECTIONS)
    if direction != ("minimise" if objective.endswith("loss") else "maximise"):
        raise ValueError(f"direction is {direction}, and {objective} is better the other way")
    parts = content.get("hyperparameters")
    if not isinstance(parts, dict) or not parts:
        raise ValueError("there is no table [hyperparameters] that names any")
    read = {name: _part(name, part) for name, part in parts.items()}
    searched = {name: part for name, part in read.items() if isinstance(part, Range | Choice)}
    if not searched:
        raise ValueError("every hyperparameter is fixed: nothing is left to search")
    fixed = {name: part for name, part in read.items() if not isinstance(part, Range | Choice)}
    return Space(objective, cast(Literal["maximise", "minimise"], direction), searched, fixed)


def _part(name: str, part: object) -> Range | Choice | Value:
    if name not in OPTIONS:
        raise ValueError(f"unknown hyperparameter {name!r}: {guess(name)}")
    if not isinstance(part, dict):
        raise ValueError(f'{name} has value {part!r}: expected a table such as {{ kind = "fixed", value = {part!r} }}')
    kind = _word(f"{name}: kind", part.get("kind"), list(_KINDS))
    needed, more = _KINDS[kind]
    _check_keys(name, part, needed, ("kind", *needed, *more))
    if kind == "fixed":
        return _value(name, "value", part["value"])
    if kind == "categorical":
        return _choice(name, part["values"])
    return _range(name, part, whole=kind == "integer")


def _choice(name: str, values: object) -> Choice:
    if not isinstance(values, list) or not 2 <= len(values) <= MAX_VALUES:
        raise ValueError(f"{name}: values is {values!r}: expected a list of 2 to {MAX_VALUES}, or kind fixed")
    checked = tuple(_value(name, "values", value) for value in values)
    if twice := [value for value in checked if checked.count(value) > 1]:
        raise ValueError(f"{name}: values has {twice[0]!r} twice")
    return Choice(checked)


def _range(name: str, part: Mapping[str, Any], *, whole: bool) -> Range:
    default = OPTIONS[name][1]
    if not isinstance(default, int | float):
        raise ValueError(f"{name} takes words, not numbers: kind categorical")
    if not whole and isinstance(default, int):
        raise ValueError(f"{name} takes whole numbers: kind integer")
    logarithmic = _word(f"{name}: scaling", part.get("scaling", "linear"), ("linear", "logarithmic")) == "logarithmic"
    low, high, points = part["low"], part["high"], part.get("points", POINTS)
    for key, number in (("low", low), ("high", high)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{name}: {key} is {number!r}: expected a number")
        if whole and number != int(number):
            raise ValueError(f"{name}: {key} is {number!r}: kind integer takes whole numbers")
        if logarithmic and number <= 0:
            raise ValueError(f"{name}: {key} is {number!r}, which has no logarithm: above 0, or scaling linear")
    if low >= high:
        raise ValueError(f"{name}: the range from {low!r} to {high!r} is empty: low has to be below high")
    for key in ("low", "high"):
        _value(name, key, part[key])
    if isinstance(points, bool) or not isinstance(points, int) or not 2 <= points <= MAX_VALUES:
        raise ValueError(f"{name}: points is {points!r}: expected an integer from 2 to {MAX_VALUES}")
    return Range(low, high, logarithmic, whole, points)


def _value(name: str, key: str, value: object) -> Value:
    """One that the training program takes."""
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    if not isinstance(text, int | float | str):
        raise ValueError(f"{name}: {key} is {value!r}: expected a number or a word")
    try:
        OPTIONS[name][0](str(text).strip())
    except (argparse.ArgumentTypeError, TrainError) as error:
        raise ValueError(f"{name}: {key} is {value!r}: expected {error}") from None
    return text


def _word(key: str, value: object, words: Sequence[str]) -> str:
    """Return `value`, one of `words`."""
    if value not in words:
        raise ValueError(f"{key} has value {value!r}: {_guess(value, words)}")
    return str(value)


def _check_keys(where: str, content: Mapping[str, object], needed: Sequence[str], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has an unknown key {key!r}: {_guess(key, known)}")
    for key in needed:
        if key not in content:
            raise ValueError(f"{where} has no {key}: expected {' and '.join(needed)}")


def _guess(value: object, known: Sequence[str]) -> str:
    close = get_close_matches(str(value), known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(known)}"
