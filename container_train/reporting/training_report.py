"""report.html: how the training went, in one file that needs nothing from anywhere. And the same as data."""

import base64
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, LinearColorMapper

from container_serve.image import decode
from container_train.data.files import Split
from container_train.export.evaluation import Answers
from container_train.paths import replace_file
from container_train.reporting import page
from container_train.reporting.drawing import Chart, blank, hover
from container_train.reporting.learning_charts import curves
from container_train.training.metrics import Confusion

BLUES = ("#eef3f9", "#d3e1f0", "#aecae6", "#7fadd8", "#528fc6", "#2f6fb3", "#1f5391", "#123a6b")
EXAMPLES = 6  # of each kind
MATRIX_CLASSES = 1000  # most of them with a matrix of numbers in a file
CELLS = 20_000  # of the matrix that are drawn, those of most images
THUMBNAIL = 160  # pixels, longer side


@dataclass(frozen=True)
class Tested:
    """The serving code's predictions of the test images.

    `served` are the answers to the images of `split`.
    """

    confusion: Confusion
    split: Split
    served: Answers


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


def write(folder: Path, summary: Mapping[str, Any], tested: Tested | None = None) -> None:
    """Write report.html into `folder`; without `tested` it tells of the training alone."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = tuple(summary["classes"])
    charts = {what: curves(summary["epochs"], what) for what in ("loss", "accuracy")}
    if tested is not None:
        charts["confusion"] = confusion_chart(tested.confusion, classes)
    text = page.render(
        "report.html.jinja",
        {name: chart.plot for name, chart in charts.items()},
        charts=charts,
        summary=summary,
        # A file that was given takes precedence over the hyperparameter of the same name.
        settings={**summary["hyperparameters"], "weights": summary["weights"]},
        tested=tested is not None,
        wrong=examples(tested.split, tested.served, classes, right=False) if tested else [],
        right=examples(tested.split, tested.served, classes, right=True) if tested else [],
        worst=sorted(summary["per_class"], key=lambda row: (row["f1"] if row["f1"] is not None else 2, row["label"])),
    )
    replace_file(folder / "report.html", text.encode())


def confusion_chart(confusion: Confusion, classes: tuple[str, ...]) -> Chart:
    """The confusion matrix, the share of each true class by colour; the counts and names on hovering."""
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
    plot = blank(640, "predicted class", x_range=(-0.5, number - 0.5), y_range=(number - 0.5, -0.5))
    plot.yaxis.axis_label = "true class"
    colour = {"field": "share", "transform": LinearColorMapper(palette=BLUES, low=0, high=1)}
    cells = plot.rect("x", "y", 1, 1, source=data, fill_color=colour, line_color=None)
    hover(plot, [cells], [("true", "@true"), ("predicted", "@predicted"), ("images", "@count (@share{0 %})")])
    plot.grid.grid_line_color = None
    labelled = list(range(0, number, max(1, -(-number // 30))))
    for axis in plot.axis:
        axis.ticker = FixedTicker(ticks=labelled)
        axis.major_label_overrides = {i: classes[i] for i in labelled}
    plot.xaxis.major_label_orientation = 1.1
    return Chart("Test images", "share of each true class", plot)


def examples(test: Split, served: Answers, classes: tuple[str, ...], *, right: bool) -> list[dict[str, Any]]:
    """Images with the three most probable classes: right ones spread over the classes, or the surest errors."""
    true, predicted = test.targets, served.predicted
    order = np.flatnonzero((predicted == true) == right)
    order = order[np.argsort(-served.probabilities[order, 0], kind="stable")]
    if right:
        _, firsts = np.unique(true[order], return_index=True)
        order = order[np.sort(firsts)][:: max(1, len(firsts) // EXAMPLES)]
    return [
        {
            "image": _thumbnail(test.paths[i]),
            "file": f"{test.paths[i].parent.name}/{test.paths[i].name}",
            "true": classes[true[i]],
            "top": [(classes[k], p) for k, p in zip(served.classes[i], served.probabilities[i].tolist(), strict=True)],
        }
        for i in order[:EXAMPLES].tolist()
    ]


def _thumbnail(path: Path) -> str:
    image = decode(path.read_bytes())
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
