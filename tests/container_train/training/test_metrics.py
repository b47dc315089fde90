import re

import numpy as np
import pytest

from container_train.training import metrics

VALUES = (0.0, 0.123456789, 1e-7, 12345.6, float("nan"), float("inf"))


@pytest.mark.parametrize(
    ("name", "value"), [*((name, 0.5) for name in metrics.NAMES), *((metrics.NAMES[0], value) for value in VALUES)]
)
def test_each_line_is_found_by_its_own_definition_only(name: str, value: float) -> None:
    text = f"2026-01-01 {metrics.line(name, value)}"
    found = {d["Name"]: re.search(d["Regex"], text) for d in metrics.DEFINITIONS}
    hits = {key: match[1] for key, match in found.items() if match}
    assert set(hits) == {name}
    assert float(hits[name]) == pytest.approx(value, rel=1e-5, nan_ok=True)


def test_the_definitions_keep_the_platform_s_limits() -> None:
    assert len(metrics.DEFINITIONS) <= 40
    assert all(len(d["Regex"]) <= 500 for d in metrics.DEFINITIONS)


def test_a_metric_without_definition_is_refused() -> None:
    with pytest.raises(KeyError):
        metrics.line("made_up", 1.0)


def test_confusion_matrix_and_per_class() -> None:
    confusion = metrics.Confusion.of(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]), 3)
    assert [confusion.row(index).tolist() for index in range(3)] == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    a, b, c = metrics.per_class(confusion, ("a", "b", "c"))
    assert (a["precision"], a["recall"], a["f1"], a["images"]) == (1.0, 2 / 3, 0.8, 3)
    assert (b["precision"], b["recall"]) == (2 / 3, 1.0)
    assert (c["precision"], c["recall"], c["f1"]) == (None, None, None)


def test_macro_f1_is_the_mean_over_the_classes_that_there_are() -> None:
    matrix = np.array([[3, 1, 0], [0, 1, 0], [0, 0, 0]])
    confusion = metrics.Confusion.of(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), 3)
    rows = metrics.per_class(confusion, ("a", "b", "c"))
    ours = metrics.macro_f1(np.diag(matrix), matrix.sum(1), matrix.sum(0))
    assert ours == pytest.approx(np.mean([row["f1"] for row in rows if row["f1"] is not None]))
