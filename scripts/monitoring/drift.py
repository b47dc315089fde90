"""The labels that an endpoint answers with, against those that the model gave to its test images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What a population stability index means, by custom: N. Siddiqi, Credit Risk Scorecards, 2006.
SMALL, LARGE = 0.1, 0.25
FEWEST = 30  # answers and test images, below which nothing is said
_Z95 = 1.6449  # of the normal distribution


@dataclass(frozen=True)
class Drift:
    """`index`: the population stability index. `noise`: what chance alone exceeds in one of 20 samples of this size."""

    index: float
    noise: float
    answers: int
    tested: int

    @property
    def found(self) -> bool:
        return min(self.answers, self.tested) >= FEWEST and self.index > self.noise

    @property
    def words(self) -> str:
        figures = f"population stability index {self.index:.2f}, by chance up to {self.noise:.2f}"
        if min(self.answers, self.tested) < FEWEST:
            return f"too few to compare: {self.answers} answers, {self.tested} test images"
        if not self.found:
            return f"no drift that {self.answers} answers could show ({figures})"
        size = "small" if self.index < SMALL else "moderate" if self.index < LARGE else "large"
        return f"a {size} drift ({figures}; {SMALL} and {LARGE} are the usual bounds)"


def compare(answers: Mapping[str, float], tested: Mapping[str, float]) -> Drift:
    """Both are counts by label. Half an image is added to each, so that a label that one of them lacks has a share.

    Without drift, the index divided by 1/N + 1/M has a chi-square distribution with one degree of freedom fewer than
    there are labels: B. Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    labels = answers.keys() | tested.keys()
    n, m = sum(answers.values()), sum(tested.values())
    index = 0.0
    for label in labels:
        a = (answers.get(label, 0) + 0.5) / (n + len(labels) / 2)
        b = (tested.get(label, 0) + 0.5) / (m + len(labels) / 2)
        index += (a - b) * math.log(a / b)
    noise = _chi_square_95(len(labels) - 1) * (1 / n + 1 / m) if n and m and len(labels) > 1 else math.inf
    return Drift(index, noise, int(n), int(m))


def _chi_square_95(degrees: int) -> float:
    """The 95th percentile, to 3 % (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + _Z95 * math.sqrt(spread)) ** 3)


def tested_labels(per_class: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how many test images the model gave each label, from the rows `per_class` of metrics.json.

    Predictions are compared with predictions: what the model always gets wrong is no drift. Of labels without a right
    answer only the sum is known; they share it.
    """
    found, unknown = {}, []
    for row in per_class:
        if row["precision"]:
            found[row["label"]] = float(round(row["recall"] * row["images"] / row["precision"]))
        elif row["precision"] is None:
            found[row["label"]] = 0.0
        else:
            unknown.append(row["label"])
    rest = max(0.0, sum(row["images"] for row in per_class) - sum(found.values()))
    return {**found, **dict.fromkeys(unknown, rest / max(1, len(unknown)))}
