"""The search space: which hyperparameters are searched, over what, and for the sake of which metric."""

import argparse
import hashlib
import itertools
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

from container_train.errors import TrainError
from container_train.hyperparameters import OPTIONS
from container_train.training.metrics import NAMES
from scripts.aws.errors import CloudError

FILE = Path(__file__).resolve().parents[1] / "search_space.toml"
Value: TypeAlias = int | float | str
KINDS = ("continuous", "integer", "categorical", "fixed")
SCALINGS = ("linear", "logarithmic")
DIRECTIONS = ("maximise", "minimise")
_SPELLINGS = {"maximize": "maximise", "minimize": "minimise", "log": "logarithmic"}
# The metrics that say how good a setting is, and why the others will not do.
OBJECTIVES = ("valid_accuracy", "valid_loss", "train_accuracy", "train_loss")
_NO_OBJECTIVE = {
    "test_accuracy": "a search that has seen the test pictures leaves nothing to measure its result on",
    **dict.fromkeys(("epoch", "best_epoch", "images_per_second"), "it does not say how good a setting is"),
}
MAX_VALUES = 30  # of a categorical one, in the service
POINTS = 5
_KEYS = {
    "continuous": {"kind", "low", "high", "scaling", "points"},
    "integer": {"kind", "low", "high", "scaling", "points"},
    "categorical": {"kind", "values"},
    "fixed": {"kind", "value"},
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

    def most_epochs(self) -> int:
        """Of the longest trial."""
        part = self.searched.get("epochs")
        values = part.grid() if part else (self.fixed.get("epochs", OPTIONS["epochs"][1]),)
        return max(int(value) for value in values)

    def default(self) -> dict[str, Value] | None:
        """What the training program takes by itself, where that lies in the space."""
        values: dict[str, Value] = {name: OPTIONS[name][1] for name in self.searched}
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
        """`given`, of the command line, stand for the file's fixed ones. Raises CloudError for one that is searched."""
        for name in given:
            if name in self.searched:
                raise CloudError(
                    f"--{name} is searched for: leave it out here, or make it fixed in the space's file", 2
                )
        return replace(self, fixed={**self.fixed, **given})

    def better(self, value: float, other: float) -> bool:
        return value > other if self.maximises else value < other

    @property
    def digest(self) -> str:
        """Of all that makes the values of two trials comparable; `points` do not."""
        parts = {name: str(replace(part, points=0) if isinstance(part, Range) else part)
                 for name, part in self.searched.items()}  # fmt: skip
        text = json.dumps([self.objective, self.direction, parts, {k: str(v) for k, v in self.fixed.items()}])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path = FILE) -> Space:
    """Read and check the file. Raises CloudError: one line that names the file, the key, and what is expected."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CloudError(f"--space {path} is not there", 2) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CloudError(f"{path} cannot be read: {error}", 2) from None
    return _Reader(path.name).space(content)


@dataclass(frozen=True)
class _Reader:
    file: str

    def fail(self, what: str) -> NoReturn:
        raise CloudError(f"{self.file}: {what}", 2)

    def word(self, key: str, value: object, words: Sequence[str]) -> str:
        """`value`, one of `words`; American spellings are taken, too."""
        known = _SPELLINGS.get(value, value) if isinstance(value, str) else value
        if known not in words:
            self.fail(f"{key} has value {value!r}: {_guess(value, words)}")
        return str(known)

    def keys(self, where: str, content: Mapping[str, object], known: Sequence[str]) -> None:
        for key in content:
            if key not in known:
                self.fail(f"{where} has an unknown key {key!r}: {_guess(key, known)}")

    def space(self, content: Mapping[str, Any]) -> Space:
        self.keys("the file", content, ("objective", "direction", "hyperparameters"))
        for key, words in (("objective", OBJECTIVES), ("direction", DIRECTIONS)):
            if key not in content:
                self.fail(f'there is no line {key} = "...": expected one of {", ".join(words)}')
        objective = content["objective"]
        if objective in _NO_OBJECTIVE:
            self.fail(f"objective {objective} cannot be searched for: {_NO_OBJECTIVE[str(objective)]}")
        if objective not in OBJECTIVES:
            assert set(OBJECTIVES) | set(_NO_OBJECTIVE) == set(NAMES)
            self.fail(f"objective has value {objective!r}, which is no metric: {_guess(objective, OBJECTIVES)}")
        direction = self.word("direction", content["direction"], DIRECTIONS)
        if direction != ("minimise" if str(objective).endswith("loss") else "maximise"):
            self.fail(f"direction is {direction}, and {objective} is better the other way")
        parts = content.get("hyperparameters")
        if not isinstance(parts, dict) or not parts:
            self.fail("there is no table [hyperparameters] that names any")
        searched: dict[str, Range | Choice] = {}
        fixed: dict[str, Value] = {}
        for name, part in parts.items():
            if name not in OPTIONS:
                self.fail(f"unknown hyperparameter {name!r}: {_guess(name, list(OPTIONS))}")
            made = self.part(name, part)
            if isinstance(made, Range | Choice):
                searched[name] = made
            else:
                fixed[name] = made
        if not searched:
            self.fail("every hyperparameter is fixed: nothing is left to search")
        return Space(str(objective), "maximise" if direction == "maximise" else "minimise", searched, fixed)

    def part(self, name: str, part: object) -> Range | Choice | Value:
        if not isinstance(part, dict):
            self.fail(f'{name} has value {part!r}: expected a table such as {{ kind = "fixed", value = {part!r} }}')
        kind = self.word(f"{name}: kind", part.get("kind"), KINDS)
        self.keys(name, part, sorted(_KEYS[kind]))
        needed = {"fixed": ("value",), "categorical": ("values",)}.get(kind, ("low", "high"))
        for key in needed:
            if key not in part:
                self.fail(f"{name} has no {key}: kind {kind} needs {' and '.join(needed)}")
        if kind == "fixed":
            return self.value(name, "value", part["value"])
        if kind == "categorical":
            return self.choice(name, part["values"])
        return self.range(name, part, whole=kind == "integer")

    def choice(self, name: str, values: object) -> Choice:
        if not isinstance(values, list) or len(values) < 2:
            self.fail(f"{name}: values is {values!r}: expected a list of two or more, or kind fixed")
        if len(values) > MAX_VALUES:
            self.fail(f"{name}: values has {len(values)}: the service takes {MAX_VALUES} at most")
        checked = tuple(self.value(name, "values", value) for value in values)
        if len(set(checked)) != len(checked):
            self.fail(f"{name}: values has {next(v for v in checked if checked.count(v) > 1)!r} twice")
        return Choice(checked)

    def range(self, name: str, part: Mapping[str, Any], *, whole: bool) -> Range:
        scaling = self.word(f"{name}: scaling", part.get("scaling", "linear"), SCALINGS)
        for key in ("low", "high"):
            number = part[key]
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                self.fail(f"{name}: {key} is {number!r}: expected a number")
            if whole and number != int(number):
                self.fail(f"{name}: {key} is {number!r}: kind integer takes whole numbers")
        low, high = part["low"], part["high"]
        if scaling == "logarithmic" and low <= 0:
            self.fail(f"{name}: low is {low!r}, which has no logarithm: take one above 0, or scaling linear")
        if not isinstance(OPTIONS[name][1], int | float):
            self.fail(f"{name} takes words, not numbers: kind categorical")
        if not whole and isinstance(OPTIONS[name][1], int):
            self.fail(f"{name} takes whole numbers: kind integer")
        if low >= high:
            self.fail(f"{name}: the range from {low!r} to {high!r} is empty: low has to be below high")
        for key in ("low", "high"):
            self.value(name, key, part[key])
        points = part.get("points", POINTS)
        if isinstance(points, bool) or not isinstance(points, int) or not 2 <= points <= MAX_VALUES:
            self.fail(f"{name}: points is {points!r}: expected a whole number from 2 to {MAX_VALUES}")
        return Range(low, high, scaling == "logarithmic", whole, points)

    def value(self, name: str, key: str, value: object) -> Value:
        """One that the training program takes."""
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        if not isinstance(text, int | float | str):
            self.fail(f"{name}: {key} is {value!r}: expected a number or a word")
        try:
            OPTIONS[name][0](str(text).strip())
        except (argparse.ArgumentTypeError, TrainError) as error:
            self.fail(f"{name}: {key} is {value!r}: expected {error}")
        return text


def _guess(value: object, known: Sequence[str]) -> str:
    close = get_close_matches(str(value), known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(known)}"
