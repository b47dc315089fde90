"""The metrics of a job: one `name=value` line of log each, and the definitions by which the platform finds them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = (
    "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "valid_macro_f1",
    "images_per_second", "best_epoch", "test_accuracy",
)  # fmt: skip
Z = 1.959964  # of a normal distribution 95 % lies within so many standard deviations
BINS = 10  # of a reliability curve
PRECISE = 2000  # images from which on tenths of a percentage point mean something
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf)"

# For Estimator(metric_definitions=...): at most 40, each Regex at most 500 characters, searched in every log line.
DEFINITIONS = [{"Name": name, "Regex": rf"(?:^|\s){name}={NUMBER}"} for name in NAMES]


def line(name: str, value: float) -> str:
    """Return the log line of one metric. Raises KeyError for a name without a definition."""
    if name not in NAMES:
        raise KeyError(f"metric {name!r} has no definition in {__name__}.NAMES")
    return f"{name}={value:.6g}"


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the Wilson interval (95 %) of a share that was measured on so many images: low and high, from 0 to 1.

    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    if images < 1:
        return 0.0, 1.0
    shrink = 1 + Z**2 / images
    middle = (share + Z**2 / (2 * images)) / shrink
    reach = Z / shrink * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def interval_words(share: float, images: int) -> str:
    """Return the interval of an accuracy in words: `61 to 83 %`."""
    low, high = (f"{100 * end:.{0 if images < PRECISE else 1}f}" for end in interval(share, images))
    return f"{low} to {high} %"


def with_interval(share: float, images: int) -> str:
    """Return an accuracy in words: `73.3 % of 60 images (61 to 83 %)`."""
    return f"{100 * share:.1f} % of {images} image{'s' * (images != 1)} ({interval_words(share, images)})"


def no_better_than_chance(share: float, class_counts: Sequence[int]) -> str:
    """Return a sentence if an accuracy is not above that of always naming the largest class; otherwise empty.

    `class_counts` are the images of each class that it was measured on.
    """
    images, largest = sum(class_counts), max(class_counts, default=0)
    if not images or interval(share, images)[0] > largest / images:
        return ""
    verdict = "NOT SHOWN TO BE BETTER THAN CHANCE" if share > largest / images else "NOT BETTER THAN CHANCE"
    return (
        f"{verdict}: {with_interval(share, images)} are predicted correctly, and always naming the most frequent class"
        f" gives {100 * largest / images:.1f} %: check the labels, lr and epochs, or test on more images"
    )


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
