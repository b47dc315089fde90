"""Two jobs side by side: what differs in what was asked for, in what came of it, and in where the time went."""

import math
import time
from typing import Any, NamedTuple

from container_train.reporting import page, summary
from container_train.reporting.drawing import TRAIN, VALID, Chart, Key, over_epochs
from container_train.reporting.measures import MEASURES, Measure, images_of, in_words
from container_train.reporting.record import Record, number, table
from container_train.reporting.words import clock_time, count, share
from container_train.training.metrics import interval

A, B = Key("A", TRAIN, mark="circle"), Key("B", VALID, "6 4", "square")  # told apart by colour and by dash
CLOSE = 0.02  # relative difference that is not worth a word
HALF_A_POINT = 0.005
COUNTED = ("epochs", "problems and warnings")


class Figure(NamedTuple):
    """A number of both jobs, in words, and how B's differs; `better` says for which of them it speaks: A, B or ""."""

    label: str
    a: str
    b: str
    difference: str
    better: str


def render(a: Record, b: Record, names: tuple[str, str]) -> str:
    """The page; `names` are what the user called the two."""
    drawn = _draw(a, b)
    asked = {
        key: (a.hyperparameters.get(key, ""), b.hyperparameters.get(key, ""))
        for key in sorted(a.hyperparameters.keys() | b.hyperparameters.keys())
    }
    different = {key: pair for key, pair in asked.items() if pair[0] != pair[1]}
    figures = [row for label, measure in MEASURES.items() if (row := _figure(label, measure, a, b))]
    other_data = _other_data(a, b)
    if other_data:  # nothing is better or worse for having had something else to do
        figures = [row._replace(better="") for row in figures]
    return page.render(
        "compare.html.jinja",
        {name: chart.plot for name, chart in drawn.items()},
        charts=drawn,
        keys=(A, B),
        names=names,
        records=(a, b),
        states=[summary.state(record, time.time()) for record in (a, b)],
        figures=figures,
        verdict=other_data or _verdict(figures, names, same_batch="batch-size" not in different),
        classes=[] if other_data else _classes(a, b),
        different=different,
        same=len(asked) - len(different),
        rules=_rules(a, b),
        made=clock_time(time.time()),
    )


def _figure(label: str, measure: Measure, a: Record, b: Record) -> Figure | None:
    one, other = measure.of(a), measure.of(b)
    words, other_words = in_words(a, label) or "-", in_words(b, label) or "-"
    change = other - one
    once = label.endswith("epoch") and min(len(a.epochs), len(b.epochs)) < 2  # a single one has no median
    if once or not math.isfinite(change):
        return Figure(label, words, other_words, "", "") if words != other_words else None
    if measure.words is share:
        # Of accuracies a difference within the uncertainty of both is none.
        seen = [images_of(record, label) for record in (a, b)]
        ends = [interval(value, images) for value, images in zip((one, other), seen, strict=True)]
        noise = math.hypot(*((high - low) / 2 for low, high in ends)) if all(seen) else HALF_A_POINT
        difference, close = f"{100 * change:+.1f} points", abs(change) < noise
    elif label in COUNTED:
        difference, close = f"{change:+.0f}", not change
    else:
        relative = change / one if one else 0.0
        close = abs(relative) < CLOSE
        difference = f"{100 * relative:+.{1 if close else 0}f} %"
    better = "" if close or not measure.sign else "B" if change * measure.sign > 0 else "A"
    return Figure(label, words, other_words, difference, better)


def _other_data(a: Record, b: Record) -> list[str]:
    """Return a sentence if the jobs had other images, as far as numbers and fingerprint are known of both."""
    prints = [str(table(r.metrics.get("job")).get("data") or "")[:12] for r in (a, b)]
    known = [(p, r.job.get("classes"), table(r.job.get("images"))) for p, r in zip(prints, (a, b), strict=True)]
    if all(one == other or not (one and other) for one, other in zip(*known, strict=True)):
        return []
    one, other = (
        f"{count(number(classes), 'class')}, {count(sum(images.values()), 'image')}{f', {data}' if data else ''}"
        for data, classes, images in known
    )
    return [f"They have other data, so that neither accuracies nor times compare: {one} (A); {other} (B)."]


def _verdict(figures: list[Figure], names: tuple[str, str], *, same_batch: bool) -> list[str]:
    """Sentences on what matters most. A step of another batch size says nothing about speed."""
    known = {row.label: row for row in figures if row.difference}
    accuracies = "test accuracy", "best validation accuracy"
    times = "time of a step, median" if same_batch else "images per second, median epoch", "time from start to end"
    sentences = []
    for labels, same, differ in (
        (accuracies, "No difference in {} that so many images could show", "has the better {}"),
        (times, "They are equally fast, {}", "is faster, {}"),
    ):
        if row := next((known[label] for label in labels if label in known), None):
            words = f"{row.better} ({names[row.better == 'B']}) {differ}" if row.better else same
            sentences.append(f"{words.replace('{}', row.label)}: {row.a} (A), {row.b} (B).")
    return sentences


def _classes(a: Record, b: Record) -> list[tuple[str, int, float, float, float]]:
    """(label, test images, F1 of A, of B, difference), each from 0 to 1, of the classes that differ, most first."""
    sides = [{row["label"]: row for row in record.metrics.get("per_class") or ()} for record in (a, b)]
    rows = [
        (label, row["images"], one, other, other - one)
        for label, row in sides[0].items()
        if (one := row["f1"] or 0.0) != (other := sides[1].get(label, row)["f1"] or 0.0)
    ]
    return sorted(rows, key=lambda row: -abs(row[-1]))


def _rules(a: Record, b: Record) -> list[dict[str, Any]]:
    """All rules of both, those first on which they differ."""
    found: list[dict[str, dict[str, Any]]] = [{row["rule"]: row for row in summary.findings(r)} for r in (a, b)]
    rows = []
    for name in sorted(found[0].keys() | found[1].keys()):
        pair = [side.get(name) for side in found]
        known = next(row for row in pair if row)
        differ = (pair[0] or {}).get("state") != (pair[1] or {}).get("state")
        rows.append({"title": known["title"], "pair": pair, "differ": differ, "order": (not differ, known["order"])})
    return sorted(rows, key=lambda row: row["order"])


def _draw(a: Record, b: Record) -> dict[str, Chart]:
    return {
        f"{split}_{what}": over_epochs(
            f"{title} {what}", what, {A: (a.epochs, f"{split}_{what}"), B: (b.epochs, f"{split}_{what}")}, 230
        )
        for split, title in (("valid", "Validation"), ("train", "Training"))
        for what in ("loss", "accuracy")
        if a.epochs or b.epochs
    }
