"""The metrics of a job: one `name=value` line of log each, and the definitions by which the platform finds them."""

import math

import numpy as np
import numpy.typing as npt

NAMES = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_accuracy",
    "images_per_second",
    "best_epoch",
    "test_accuracy",
)
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf)"

# For Estimator(metric_definitions=...): at most 40, each Regex at most 500 characters, searched in every log line.
DEFINITIONS = [{"Name": name, "Regex": rf"(?:^|\s){name}={NUMBER}"} for name in NAMES]


def line(name: str, value: float) -> str:
    """The log line of one metric; a name without a definition is a mistake of the program."""
    if name not in NAMES:
        raise KeyError(f"metric {name!r} has no definition in {__name__}.NAMES")
    text = f"{value:.6g}" if not math.isnan(value) else "nan"
    return f"{name}={text}"


def confusion_matrix(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Counts (classes, classes): row the true class, column the predicted one. Both inputs (N,) class indices."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def per_class(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> list[dict[str, object]]:
    """Precision, recall, F1 and number of pictures of each class; None where a ratio has nothing to divide by."""
    rows: list[dict[str, object]] = []
    for index, label in enumerate(labels):
        hits, is_class, called = (int(x) for x in (matrix[index, index], matrix[index].sum(), matrix[:, index].sum()))
        precision = hits / called if called else None
        recall = hits / is_class if is_class else None
        f1 = 2 * hits / (is_class + called) if is_class + called else None
        rows.append({"label": label, "images": is_class, "precision": precision, "recall": recall, "f1": f1})
    return rows
