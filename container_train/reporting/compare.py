"""Two jobs side by side: what differs in what was asked for, in what came of it, and in where the time went."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import NumeralTickFormatter, Range1d

from container_train.reporting import page, summary
from container_train.reporting.drawing import Chart, Key, blank, hover, line
from container_train.reporting.record import Record, number
from container_train.reporting.step_charts import unit_of
from container_train.reporting.style import TRAIN, VALID
from container_train.reporting.usage import Curve
from container_train.reporting.words import clock_time, duration, share

A, B = Key("A", TRAIN), Key("B", VALID, "6 4")  # told apart by colour and by dash
CLOSE = 0.02  # relative difference that is not worth a word


class Figure(NamedTuple):
    """A number of both jobs, in words, and how B's differs; `better` says for which of them it speaks: A, B or ""."""

    label: str
    a: str
    b: str
    difference: str
    better: str


def render(a: Record, b: Record, names: tuple[str, str]) -> str:
    """The page; `names` are what the user called the two."""
    drawn = {name: chart for name, chart in _draw(a, b).items() if chart is not None}
    hyperparameters = a.hyperparameters.keys() | b.hyperparameters.keys()
    different = {
        key: (a.hyperparameters.get(key, ""), b.hyperparameters.get(key, ""))
        for key in sorted(hyperparameters)
        if a.hyperparameters.get(key) != b.hyperparameters.get(key)
    }
    figures = _figures(a, b)
    return page.render(
        "compare.html.jinja",
        {name: chart.plot for name, chart in drawn.items()},
        charts=drawn,
        keys=(A, B),
        names=names,
        records=(a, b),
        states=[summary.state(record, time.time()) for record in (a, b)],
        figures=figures,
        verdict=_verdict(figures),
        different=different,
        same=len(hyperparameters) - len(different),
        rules=_rules(a, b),
        words=summary.STATUSES,
        shares=_shares(a, b),
        made=clock_time(time.time()),
    )


def _figures(a: Record, b: Record) -> list[Figure]:
    """What is known of at least one of them."""

    def of(record: Record) -> dict[str, float]:
        total = record.steps.total[np.isfinite(record.steps.total)]
        epochs, use = record.epochs, record.usage
        busy = [
            float(np.mean([curve.average for curve in curves])) if curves else math.nan
            for curves in (use.gpu, use.cpu[:1])
        ]
        return {
            "best validation accuracy": max((row["valid_accuracy"] for row in epochs), default=math.nan),
            "test accuracy": number(record.metrics.get("test_accuracy")),
            "epochs": len(epochs) or math.nan,
            "time from start to end": record.clock.length or math.nan,
            "time of a step, median": float(np.median(total)) if len(total) else math.nan,
            "time of a step, 95 %": float(np.percentile(total, 95)) if len(total) else math.nan,
            "pictures a second, median epoch": _median([row["images_per_second"] for row in epochs]),
            "GPU busy": busy[0] / 100,
            "CPU busy": busy[1] / 100,
            "memory used, peak": max((curve.peak for curve in use.memory), default=math.nan) / 100,
            "rules that fired": sum(row["status"] == "fired" for row in record.rules) if record.rules else math.nan,
        }

    first, second = of(a), of(b)
    rows = []
    for label, one in first.items():
        other = second[label]
        words: Callable[[float], str] = _plain
        if "accuracy" in label or "busy" in label or "memory" in label:
            words = share
        elif label.startswith("time"):
            words = duration
        if math.isfinite(one) or math.isfinite(other):
            a_text, b_text = (words(value) if math.isfinite(value) else "-" for value in (one, other))
            difference, better = _difference(label, one, other)
            rows.append(Figure(label, a_text, b_text, difference, better))
    return rows


def _plain(value: float) -> str:
    return f"{value:.0f}"


def _median(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def _difference(label: str, one: float, other: float) -> tuple[str, str]:
    """(how much B's is more than A's, which of them it speaks for)."""
    if not math.isfinite(one) or not math.isfinite(other):
        return "", ""
    change = other - one
    if "accuracy" in label:
        return f"{100 * change:+.1f} points", "" if abs(change) < 0.005 else "B" if change > 0 else "A"
    if "busy" in label or "memory" in label:
        return f"{100 * change:+.1f} points", ""
    if label in ("epochs", "rules that fired"):
        return f"{change:+.0f}", "" if label == "epochs" or not change else "A" if change > 0 else "B"
    relative = change / one if one else 0.0
    if abs(relative) < CLOSE:
        return f"{100 * relative:+.1f} %", ""
    more_is_better = label.startswith("pictures")
    return f"{100 * relative:+.0f} %", "B" if (change > 0) == more_is_better else "A"


def _verdict(figures: list[Figure]) -> list[str]:
    """Sentences on what matters most."""
    known = {row.label: row for row in figures if row.difference}
    sentences = []
    accuracy = known.get("test accuracy") or known.get("best validation accuracy")
    if accuracy:
        sentences.append(
            f"{accuracy.better} has the better {accuracy.label}: {accuracy.a} (A), {accuracy.b} (B)."
            if accuracy.better
            else f"Their {accuracy.label} is the same within half a point: {accuracy.a} (A), {accuracy.b} (B)."
        )
    step = known.get("time of a step, median") or known.get("time from start to end")
    if step:
        sentences.append(
            f"{step.better} is faster, {step.label}: {step.a} (A), {step.b} (B)."
            if step.better
            else f"They are equally fast, {step.label}: {step.a} (A), {step.b} (B)."
        )
    return sentences


def _rules(a: Record, b: Record) -> list[dict[str, Any]]:
    """All rules of both, those first on which they differ."""
    found: list[dict[str, dict[str, Any]]] = [{row["name"]: row for row in summary.findings(r)} for r in (a, b)]
    rows = []
    for name in sorted(found[0].keys() | found[1].keys()):
        pair = [side.get(name) for side in found]
        known = next(row for row in pair if row)
        differ = (pair[0] or {}).get("status") != (pair[1] or {}).get("status")
        rows.append({"title": known["title"], "pair": pair, "differ": differ, "order": (not differ, known["order"])})
    return sorted(rows, key=lambda row: row["order"])


def _shares(a: Record, b: Record) -> list[dict[str, Any]]:
    """The rows of "where the time went" of both, and their bars as shares of the longest."""
    sides: list[Mapping[tuple[int, str], summary.Share]] = [
        {(row.depth, row.label): row for row in summary.shares(record)} for record in (a, b)
    ]
    longest = max((row.seconds for side in sides for row in side.values()), default=0.0) or 1.0
    keys = list(sides[0]) + [key for key in sides[1] if key not in sides[0]]
    return [
        {
            "label": label,
            "depth": depth,
            "pair": [(side[depth, label].seconds if (depth, label) in side else 0.0) for side in sides],
            "took": [(side[depth, label].took if (depth, label) in side else "-") for side in sides],
            "longest": longest,
        }
        for depth, label in keys
    ]


def _draw(a: Record, b: Record) -> dict[str, Chart | None]:
    return {
        "valid_loss": _epochs(a, b, "valid_loss", "Validation loss", "cross entropy"),
        "valid_accuracy": _epochs(a, b, "valid_accuracy", "Validation accuracy", "share of the pictures"),
        "train_loss": _epochs(a, b, "train_loss", "Training loss", "cross entropy"),
        "train_accuracy": _epochs(a, b, "train_accuracy", "Training accuracy", "share of the pictures"),
        "steps": _steps(a, b),
        "gpu": _usage("GPU", a, b, [r.usage.gpu for r in (a, b)]),
        "cpu": _usage("CPU", a, b, [r.usage.cpu[:1] for r in (a, b)]),
    }


def _epochs(a: Record, b: Record, column: str, title: str, unit: str) -> Chart | None:
    if not a.epochs and not b.epochs:
        return None
    plot = blank(230, "epoch")
    lines = [
        line(plot, [row["epoch"] for row in record.epochs], [row[column] for row in record.epochs], key, 2)
        for record, key in ((a, A), (b, B))
    ]
    for renderer, key, marker in zip(lines, (A, B), ("circle", "square"), strict=True):
        plot.scatter("x", "y", source=renderer.data_source, color=key.colour, size=6, marker=marker)
    share_of_all = column.endswith("accuracy")
    hover(plot, lines, [("", "$name"), ("epoch", "@x"), (title, "@y{0.0 %}" if share_of_all else "@y{0.0000}")])
    if share_of_all:
        plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return Chart(title, unit, plot, [A, B])


def _steps(a: Record, b: Record) -> Chart | None:
    """Both distributions, as shares of the steps: the jobs may have different numbers of them."""
    totals = [record.steps.total[np.isfinite(record.steps.total)] for record in (a, b)]
    if not all(len(total) for total in totals):
        return None
    unit, scale = unit_of(np.concatenate(totals))
    totals = [total * scale for total in totals]
    high = max(float(np.percentile(total, 99)) * 1.2 for total in totals)
    edges = np.linspace(0, high or 1.0, 81)
    plot = blank(230, unit, x_range=Range1d(0, high or 1.0))
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    for total, key in zip(totals, (A, B), strict=True):
        counts, _ = np.histogram(total, edges)
        line(plot, np.repeat(edges, 2)[1:-1], np.repeat(counts / len(total), 2), key, 1.8)
    return Chart("Time of a step", "share of the steps", plot, [A, B])


def _usage(title: str, a: Record, b: Record, curves: list[list[Curve]]) -> Chart | None:
    """The mean over the devices, over the share of each job's own time, so that the phases lie near each other."""
    if not all(curves):
        return None
    plot = blank(180, y_range=Range1d(0, 104), x_range=Range1d(0, 1))
    plot.xaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.xaxis.axis_label = "of the job's own time"
    lines = []
    for record, devices, key in zip((a, b), curves, (A, B), strict=True):
        short = min(len(curve.x) for curve in devices)
        mean = np.mean([curve.mean[:short] for curve in devices], axis=0)
        lines.append(line(plot, devices[0].x[:short] / (record.clock.length or 1.0), mean, key))
    hover(plot, lines, [("", "$name"), ("busy", "@y{0.0} %")])
    return Chart(title, "% busy, mean of all", plot, [A, B])
