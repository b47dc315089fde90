"""The metrics of a job: one `name=value` line of log each, and the definitions by which the platform finds them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = (
    "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "valid_macro_f1",
    "images_per_second", "best_epoch", "test_accuracy",
)  # fmt: skip
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf)"

# For Estimator(metric_definitions=...): at most 40, each Regex at most 500 characters, searched in every log line.
DEFINITIONS = [{"Name": name, "Regex": rf"(?:^|\s){name}={NUMBER}"} for name in NAMES]


def line(name: str, value: float) -> str:
    """Return the log line of one metric. Raises KeyError for a name without a definition."""
    if name not in NAMES:
        raise KeyError(f"metric {name!r} has no definition in {__name__}.NAMES")
    text = f"{value:.6g}" if not math.isnan(value) else "nan"
    return f"{name}={text}"


@dataclass(frozen=True)
class Confusion:
    """Of the K pairs of a true and a predicted class that occur, how many `images` have each: three int64 (K,).

    `classes` is the number of all. (The matrix of 10,000 classes would take 800 MB.)
    """

    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    classes: int

    @classmethod
    def of(cls, true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> "Confusion":
        """Count class indices (N,)."""
        pairs, images = np.unique(true * classes + predicted, return_counts=True)
        return cls(pairs // classes, pairs % classes, images, classes)

    def sums(self, of: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the images of each class (C,), `of` being `true` or `predicted`."""
        return np.bincount(of, self.images, self.classes).astype(np.int64)

    def row(self, index: int) -> npt.NDArray[np.int64]:
        """Return the images of a true class by the predicted one (C,)."""
        first, last = np.searchsorted(self.true, [index, index + 1])
        return np.bincount(self.predicted[first:last], self.images[first:last], self.classes).astype(np.int64)


def per_class(confusion: Confusion, labels: tuple[str, ...]) -> list[dict[str, object]]:
    """Return precision, recall, F1 and number of images of each class; None for a ratio whose divisor is 0."""
    right = np.where(confusion.true == confusion.predicted, confusion.images, 0)
    hits = np.bincount(confusion.true, right, confusion.classes).astype(np.int64)
    columns = (hits, confusion.sums(confusion.true), confusion.sums(confusion.predicted))
    rows: list[dict[str, object]] = []
    for label, correct, images, predicted in zip(labels, *(column.tolist() for column in columns), strict=True):
        precision = correct / predicted if predicted else None
        recall = correct / images if images else None
        f1 = 2 * correct / (images + predicted) if images + predicted else None
        rows.append({"label": label, "images": images, "precision": precision, "recall": recall, "f1": f1})
    return rows


def macro_f1(correct: npt.NDArray[Any], images: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Return the mean F1 of the classes, with counts (classes,) of each; one without images or predictions is none."""
    known = (images + predicted) > 0
    return float(np.mean(2 * correct[known] / (images + predicted)[known])) if known.any() else math.nan
