"""The figures of a job that its cards show, and by which two jobs are compared."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from container_train.reporting.record import TERMINAL, Record, number, table
from container_train.reporting.words import duration, share
from container_train.training.metrics import interval_words


class Measure(NamedTuple):
    """The value of a figure and its words. `sign` is 1 where more is better, -1 where less is, 0 where neither is."""

    of: Callable[[Record], float]
    words: Callable[[float], str]
    sign: int


def best_epoch(record: Record) -> dict[str, Any]:
    """As the training itself decides: of equal scores the one with the lower loss. {} before the first."""
    by = "valid_macro_f1" if record.hyperparameters.get("select-by") == "macro-f1" else "valid_accuracy"
    rank = (by, 1), ("valid_loss", -1)
    return max(
        record.epochs, key=lambda row: [np.nan_to_num(sign * row[key], nan=-1e9) for key, sign in rank], default={}
    )


def _statistic(take: Callable[[Any], Any], values: Iterable[float], scale: float = 1.0) -> float:
    known = np.array([value for value in values if math.isfinite(value)])
    return float(take(known)) * scale if len(known) else math.nan


def images_of(record: Record, label: str) -> int:
    """Return the number of images that an accuracy was measured on; 0 of other figures, or if it is not known."""
    images = number(table(record.job.get("images") or record.metrics.get("images")).get(ACCURACIES.get(label, "")))
    return int(images) if images >= 1 else 0


def in_words(record: Record, label: str) -> str:
    """Return the value of a measure, an accuracy with its interval; empty if it is not known."""
    value, images = MEASURES[label].of(record), images_of(record, label)
    if not math.isfinite(value):
        return ""
    return MEASURES[label].words(value) + (f" ({interval_words(value, images)})" if images else "")


def _problems(record: Record) -> float:
    """Return how many rules fired with a problem or warning. Not known, rather than 0, of a job that came to no end."""
    fired = sum(rule.status == "fired" and rule.severity != "information" for rule in record.rules)
    status = record.job.get("status")
    failed = status == "failed" or (record.final and status not in TERMINAL)
    return float(fired) if fired or (record.rules and not failed) else math.nan


def whole(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


P95 = functools.partial(np.percentile, q=95)
ACCURACIES = {"best validation accuracy": "valid", "test accuracy": "test"}
MEASURES = {
    "time from start to end": Measure(lambda r: r.clock.length or math.nan, duration, -1),
    "epochs": Measure(lambda r: float(len(r.epochs)), whole, 0),
    "best validation accuracy": Measure(lambda r: best_epoch(r).get("valid_accuracy", math.nan), share, 1),
    "test accuracy": Measure(lambda r: number(r.metrics.get("test_accuracy")), share, 1),
    "images per second, median epoch": Measure(
        lambda r: _statistic(np.median, (row["images_per_second"] for row in r.epochs[r.head_epochs :] or r.epochs)),
        whole,
        1,
    ),
    "time of a step, median": Measure(lambda r: _statistic(np.median, r.step_seconds), duration, -1),
    "time of a step, 95 % below": Measure(
        lambda r: _statistic(lambda s: np.percentile(s, 95), r.step_seconds), duration, -1
    ),
    "GPU busy": Measure(lambda r: _statistic(np.mean, (c.average for c in r.usage["gpu"]), 0.01), share, 0),
    "CPU busy": Measure(lambda r: _statistic(np.mean, (c.average for c in r.usage["cpu"][:1]), 0.01), share, 0),
    "memory used, peak": Measure(lambda r: _statistic(np.max, (c.peak for c in r.usage["memory"]), 0.01), share, 0),
    "problems and warnings": Measure(_problems, whole, -1),
}
