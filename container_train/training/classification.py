"""Counts of right and wrong predictions, class by class, and how far the probabilities can be believed."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10  # of a reliability curve


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


def calibration(confidence: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return how far the probabilities can be believed: mean `confidence`, `ece`, `bins`.

    `confidence` (N,) is the probability of the predicted class, which is `right` (N,) or not.
    The expected calibration error is the mean difference of confidence and accuracy in BINS bins of equal width,
    weighted by their images (https://arxiv.org/abs/1706.04599). Bins without images are left out.
    """
    sure = confidence.astype(float)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    rows = [
        {"from": b / BINS, "to": (b + 1) / BINS, "images": int(own.sum()), "confidence": float(sure[own].mean()),
         "accuracy": float(right[own].mean())}
        for b in range(BINS) if (own := bins == b).any()
    ]  # fmt: skip
    gaps = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
    return {"confidence": float(sure.mean()), "ece": gaps / len(sure), "bins": rows}


def macro_f1(correct: npt.NDArray[Any], images: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Return the mean F1 of the classes, with counts (classes,) of each; one without images or predictions is none."""
    known = (images + predicted) > 0
    return float(np.mean(2 * correct[known] / (images + predicted)[known])) if known.any() else math.nan
