import re

import numpy as np
import pytest

from container_train.training import classification, metrics

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


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),  # scipy.stats.binomtest(correct, images).proportion_ci(method="wilson")
    [
        (44, 60, 0.609913, 0.828674),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (1, 1, 0.206549, 1.0),
        (16_424, 20_000, 0.815828, 0.826449),
    ],
)
def test_the_interval_of_an_accuracy_is_wilson_s(correct: int, images: int, low: float, high: float) -> None:
    found = metrics.interval(correct / images, images)
    assert found == pytest.approx((low, high), abs=1e-6)
    assert 0 <= found[0] <= found[1] <= 1


def test_no_images_tell_nothing_of_an_accuracy() -> None:
    assert metrics.interval(0.0, 0) == (0.0, 1.0)


def test_an_accuracy_in_words_is_no_metric_line() -> None:
    assert metrics.with_interval(44 / 60, 60) == "73.3 % of 60 images (61 to 83 %)"
    assert metrics.with_interval(1.0, 1) == "100.0 % of 1 image (21 to 100 %)"
    assert metrics.with_interval(0.8212, 20_000) == "82.1 % of 20000 images (81.6 to 82.6 %)"
    assert not [d for d in metrics.DEFINITIONS if re.search(d["Regex"], metrics.with_interval(0.5, 60))]


@pytest.mark.parametrize(
    ("share", "counts", "verdict"),
    [
        (0.5, [30, 30], "NOT BETTER"),
        (0.6, [30, 30], "NOT SHOWN TO BE BETTER"),  # 47 to 71 %
        (0.65, [30, 30], ""),
        (0.92, [90, 10], "NOT SHOWN TO BE BETTER"),  # always naming the large class gives 90 %
        (0.85, [90, 10], "NOT BETTER"),
        (1.0, [2, 1], "NOT SHOWN TO BE BETTER"),  # three images say nothing
        (0.3, [60] * 10, ""),
    ],
)
def test_a_model_that_is_no_better_than_chance_is_told_of(share: float, counts: list[int], verdict: str) -> None:
    words = metrics.no_better_than_chance(share, counts)
    start = f"{verdict} THAN CHANCE: {metrics.with_interval(share, sum(counts))}"
    assert words.startswith(start) if verdict else not words
    assert not verdict or f"class gives {100 * max(counts) / sum(counts):.1f} %" in words


def test_confusion_matrix_and_per_class() -> None:
    confusion = classification.Confusion.of(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]), 3)
    assert [confusion.row(index).tolist() for index in range(3)] == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    a, b, c = classification.per_class(confusion, ("a", "b", "c"))
    assert (a["precision"], a["recall"], a["f1"], a["images"]) == (1.0, 2 / 3, 0.8, 3)
    assert (b["precision"], b["recall"]) == (2 / 3, 1.0)
    assert (c["precision"], c["recall"], c["f1"]) == (None, None, None)


def test_macro_f1_is_the_mean_over_the_classes_that_there_are() -> None:
    matrix = np.array([[3, 1, 0], [0, 1, 0], [0, 0, 0]])
    confusion = classification.Confusion.of(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), 3)
    rows = classification.per_class(confusion, ("a", "b", "c"))
    ours = classification.macro_f1(np.diag(matrix), matrix.sum(1), matrix.sum(0))
    assert ours == pytest.approx(np.mean([row["f1"] for row in rows if row["f1"] is not None]))
