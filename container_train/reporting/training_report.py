"""report.html: how the training went, in one file that needs nothing from anywhere. And the same as data."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, LinearColorMapper, NumeralTickFormatter, Whisker

from container_train.paths import replace_file
from container_train.reporting import mistakes, page, record, summary
from container_train.reporting.drawing import TRAIN, VALID, Chart, Key, blank, colour_bar, hover, line
from container_train.reporting.learning_charts import curves
from container_train.reporting.mistakes import Tested
from container_train.reporting.words import clock_time
from container_train.training import metrics
from container_train.training.classification import Confusion

BLUES = ("#eef3f9", "#d3e1f0", "#aecae6", "#7fadd8", "#528fc6", "#2f6fb3", "#1f5391", "#123a6b")
DARK = 0.55  # share of a class from which its cell's number is white
COUNTED = 30  # classes up to which each cell of the confusion matrix has its number
MATRIX_CLASSES = 1000  # most of them with a matrix of numbers in a file
CELLS = 20_000  # of the matrix that are drawn, those of most images


def write_metrics(folder: Path, summary: Mapping[str, Any]) -> None:
    """metrics.json: all figures of the job, for programs; each is a finite number (else ValueError), or null."""
    replace_file(folder / "metrics.json", json.dumps(summary, indent=1, allow_nan=False).encode())


def matrix_csv(confusion: Confusion, classes: tuple[str, ...]) -> str:
    """The confusion matrix with its labels, a row per true class; of many classes a row per pair that occurs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if len(classes) > MATRIX_CLASSES:
        pairs = zip(confusion.true.tolist(), confusion.predicted.tolist(), confusion.images.tolist(), strict=True)
        writer.writerow(["true", "predicted", "images"])
        writer.writerows([classes[true], classes[predicted], images] for true, predicted, images in pairs)
    else:
        writer.writerow(["true \\ predicted", *classes])
        writer.writerows([label, *confusion.row(index).tolist()] for index, label in enumerate(classes))
    return text.getvalue()


def write(folder: Path, facts: Mapping[str, Any], tested: Tested | None = None) -> None:
    """Write report.html into `folder`; without `tested` it tells of the training alone. `facts` are metrics.json's."""
    folder.mkdir(parents=True, exist_ok=True)
    classes, best = tuple(facts["classes"]), facts["best_epoch"]
    charts = {what: curves(facts["epochs"], what, best) for what in ("loss", "accuracy")}
    if tested is not None:
        charts["confusion"] = confusion_chart(tested.confusion, classes)
        charts["calibration"] = calibration(facts["calibration"])
    # A file that was given takes precedence over the hyperparameter of the same name.
    changed, same = record.settings({**facts["hyperparameters"], "weights": facts["weights"]})
    text = page.render(
        "report.html.jinja",
        {name: chart.plot for name, chart in charts.items()},
        charts=charts,
        summary=facts,
        when=clock_time(facts["job"]["ended"]),
        rules=summary.found(record.rules(folder)),
        within=lambda split: metrics.interval_words(facts[f"{split}_accuracy"], facts["images"][split]),
        trust=_trust(facts) if tested else "",
        changed=changed,
        defaults=same,
        tested=tested is not None,
        **(mistakes.galleries(tested, classes) if tested else {}),
        worst=sorted(facts["per_class"], key=lambda row: (row["f1"] if row["f1"] is not None else 2, row["label"])),
    )
    replace_file(folder / "report.html", text.encode())


def _trust(facts: Mapping[str, Any]) -> str:
    """Return whether the probabilities can be believed; only what so many images can show is said."""
    accuracy, images, sure = facts["test_accuracy"], facts["images"]["test"], facts["calibration"]["confidence"]
    low, high = metrics.interval(accuracy, images)
    verdict = "overconfident" if sure > high else "underconfident" if sure < low else "well calibrated on the whole"
    words = f"its mean confidence is {100 * sure:.1f} %, it is right on {metrics.with_interval(accuracy, images)}"
    error = 100 * facts["calibration"]["ece"]
    return f"The model is {verdict}: {words}. Expected calibration error (ECE): {error:.1f} points."


def calibration(found: Mapping[str, Any]) -> Chart:
    """The reliability curve: of images of about the same confidence, the share that is right, with its interval."""
    rows = found["bins"]
    sure = [metrics.interval(row["accuracy"], row["images"]) for row in rows]
    keys = [Key("test images, with their 95 % intervals", TRAIN), Key("as it should be", VALID, "6 4")]
    plot = blank(300, "confidence: probability of the predicted class", x_range=(0, 1), y_range=(0, 1))
    plot.xaxis.formatter = plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    line(plot, [0, 1], [0, 1], keys[1])
    drawn = line(
        plot, [row["confidence"] for row in rows], [row["accuracy"] for row in rows], keys[0],
        images=[row["images"] for row in rows], low=[low for low, _ in sure], high=[high for _, high in sure],
    )  # fmt: skip
    plot.scatter("x", "y", source=drawn.data_source, color=TRAIN, size=8)
    ends = Whisker(base="x", lower="low", upper="high", source=drawn.data_source, line_color=TRAIN)
    ends.lower_head = ends.upper_head = None
    plot.add_layout(ends)
    hover(plot, [drawn], [("confidence", "@x{0.0 %}"), ("right", "@y{0.0 %}"), ("images", "@images")])
    return Chart("Reliability", "share of the images that are right", plot, keys)


def confusion_chart(confusion: Confusion, classes: tuple[str, ...]) -> Chart:
    """The confusion matrix: the share of each true class by colour, and the numbers of images."""
    number = len(classes)
    shown = np.sort(np.argsort(-confusion.images, kind="stable")[:CELLS])
    rows, columns, images = confusion.true[shown], confusion.predicted[shown], confusion.images[shown]
    data = ColumnDataSource(
        {
            "x": columns,
            "y": rows,
            "share": images / confusion.sums(confusion.true)[rows],
            "count": images,
            "true": [classes[i] for i in rows],
            "predicted": [classes[i] for i in columns],
        }
    )
    data.data["ink"] = ["white" if share > DARK else "#1d2430" for share in data.data["share"]]
    height = min(680, 240 + 40 * number)
    plot = blank(height, "predicted class", x_range=(-0.5, number - 0.5), y_range=(number - 0.5, -0.5))
    plot.yaxis.axis_label = "true class"
    mapper = LinearColorMapper(palette=BLUES, low=0, high=1)
    colour = {"field": "share", "transform": mapper}
    cells = plot.rect("x", "y", 1, 1, source=data, fill_color=colour, line_color=None)
    if number <= COUNTED:
        size = "12px" if number <= COUNTED / 2 else "9px"
        plot.text(
            "x", "y", "count", source=data, text_color="ink", text_align="center", text_baseline="middle",
            text_font_size=size,
        )  # fmt: skip
    bar = colour_bar(mapper)
    bar.formatter = NumeralTickFormatter(format="0 %")
    plot.add_layout(bar, "below")
    hover(plot, [cells], [("true", "@true"), ("predicted", "@predicted"), ("images", "@count (@share{0 %})")])
    plot.grid.grid_line_color = None
    labelled = list(range(0, number, max(1, -(-number // 30))))
    for axis in plot.axis:
        axis.ticker = FixedTicker(ticks=labelled)
        axis.major_label_overrides = {i: classes[i] for i in labelled}
    plot.xaxis.major_label_orientation = 1.1
    return Chart("Test images", "share of each true class", plot)
