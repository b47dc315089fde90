"""The metrics of a job: one `name=value` line of log each, and the definitions by which the platform finds them."""

import math
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


def confusion_matrix(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Return counts (classes, classes): row the true class, column the predicted one. Inputs: class indices (N,)."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def per_class(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> list[dict[str, object]]:
    """Return precision, recall, F1 and number of images of each class; None for a ratio whose divisor is 0."""
    rows: list[dict[str, object]] = []
    for index, label in enumerate(labels):
        correct, images, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        precision = correct / predicted if predicted else None
        recall = correct / images if images else None
        f1 = 2 * correct / (images + predicted) if images + predicted else None
        rows.append({"label": label, "images": images, "precision": precision, "recall": recall, "f1": f1})
    return rows


def macro_f1(correct: npt.NDArray[Any], images: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Return the mean F1 of the classes, with counts (classes,) of each; one without images or predictions is none."""
    known = (images + predicted) > 0
    return float(np.mean(2 * correct[known] / (images + predicted)[known])) if known.any() else math.nan
