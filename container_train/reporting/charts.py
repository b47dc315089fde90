"""The charts of the profiler's report: which there are, and those of the training."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from bokeh.models import LinearColorMapper, NumeralTickFormatter, Range1d
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from container_train.profiler.store import Floats
from container_train.reporting import style
from container_train.reporting.drawing import (
    COLOURS,
    DASHES,
    LINES,
    POINTS,
    Chart,
    Key,
    blank,
    hover,
    image_of,
    label_rows,
    line,
    span,
    thinned,
)
from container_train.reporting.record import Record
from container_train.reporting.step_charts import histogram, step_parts, step_times
from container_train.reporting.style import TRAIN, VALID
from container_train.reporting.summary import PARTS
from container_train.reporting.time_charts import over_time

LAST = ("classifier", "fc", "head", "heads")  # what architectures call the layers that give the classes


def draw(record: Record, fired: Sequence[tuple[float, str]] = ()) -> dict[str, Chart]:
    """The charts that there is something to draw for, by name. `fired`: (step, title) of rules that fired."""
    drawn: dict[str, Chart] = {}
    if record.epochs or (record.losses.get("train", {}).get("step") and record.steps_per_epoch > 0):
        drawn["loss"] = loss(record, fired)
    if record.epochs:
        drawn["accuracy"] = accuracy(record)
    gradients = {name: record.gradients[name] for name in _layers(record) if record.gradients[name]["step"]}
    if gradients:
        drawn["gradients"] = gradient_map(gradients) if len(gradients) > LINES else gradient_lines(gradients, fired)
    if (record.steps.total > 0).sum() > 1:
        drawn |= {"histogram": histogram(record), "step_times": step_times(record)}
        if any(np.isfinite(getattr(record.steps, part)).any() for part in PARTS):
            drawn["step_parts"] = step_parts(record)
    return drawn | over_time(record)


def _layers(record: Record) -> list[str]:
    """From the pictures on, as far as names tell: numbers by their value, and what classifies last."""

    def place(name: str) -> tuple[bool, list[tuple[int, str]]]:
        parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,9})", name)]
        return name.split(".")[0] in LAST, parts

    return sorted(record.gradients, key=place)


def loss(record: Record, fired: Sequence[tuple[float, str]]) -> Chart:
    """Loss over the epochs; behind it, thin, that of the single steps where tensors were saved."""
    plot = _epochs(record, "loss")
    keys = [Key("train", TRAIN), Key("valid", VALID)] if record.epochs else []
    an_epoch = record.steps_per_epoch
    if an_epoch > 0:
        series = record.losses.get("train", {"step": [], "value": []})
        if series["step"]:
            x, y = thinned(np.array(series["step"]), np.array(series["value"]))
            keys.append(Key("train, single steps", "#7fadd8"))
            line(plot, (x + 1) / an_epoch, y, keys[-1], 1).level = "underlay"
        keys += _marks(plot, [((step + 1) / an_epoch, f"{name} first fired, step {step:.0f}") for step, name in fired])
    return Chart("Loss", "cross entropy", plot, keys)


def accuracy(record: Record) -> Chart:
    plot = _epochs(record, "accuracy")
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return Chart("Accuracy", "share of the pictures", plot, [Key("train", TRAIN), Key("valid", VALID)])


def _epochs(record: Record, what: str) -> figure:
    plot = style.curves(record.epochs, what, "")
    plot.toolbar.active_drag = None
    plot.title, plot.height = None, 250
    plot.toolbar.autohide = plot.toolbar_inner = True
    plot.legend.visible = False
    return plot


def gradient_lines(gradients: Mapping[str, Mapping[str, list[float]]], fired: Sequence[tuple[float, str]]) -> Chart:
    """The norm of the gradient of each layer over the steps."""
    plot = blank(250, "step", y_axis_type="log")
    keys, lines = [], []
    for index, (name, series) in enumerate(gradients.items()):
        keys.append(Key(name, COLOURS[index % 8], DASHES[index % 8]))
        lines.append(line(plot, *thinned(np.array(series["step"]), _positive(series["norm"])), keys[-1]))
    hover(plot, lines, [("", "$name"), ("step", "@x{0}"), ("norm", "@y{0.00e+0}")])
    keys += _marks(plot, [(step, f"{name} first fired, step {step:.0f}") for step, name in fired])
    return Chart("Gradient of each layer", "L2 norm, logarithmic", plot, keys)


def gradient_map(gradients: Mapping[str, Mapping[str, list[float]]]) -> Chart:
    """A row for each layer, the one next to the pictures on top; the colour is the power of ten of the norm."""
    names = list(gradients)
    steps = np.unique(np.concatenate([series["step"] for series in gradients.values()]))
    columns = int(min(steps[-1] - steps[0] + 1, POINTS))
    edges = np.linspace(steps[0], steps[-1] + 1, columns + 1)
    image = np.full((len(names), columns), np.nan)
    for row, series in enumerate(gradients.values()):
        own, norms = np.array(series["step"]), np.log10(_positive(series["norm"]))
        # What was saved last holds until the next saved step: the job saves them at growing distances.
        image[row] = norms[np.clip(np.searchsorted(own, edges[1:], side="left") - 1, 0, len(own) - 1)]
    known = image[np.isfinite(image)]
    low, high = (float(np.floor(known.min())), float(np.ceil(known.max()))) if len(known) else (-1.0, 0.0)
    plot = blank(
        max(220, min(520, 90 + 10 * len(names))), "step",
        x_range=Range1d(float(edges[0]), float(edges[-1])), y_range=Range1d(len(names), 0),
    )  # fmt: skip
    mapper = LinearColorMapper(palette=Cividis256, low=low, high=max(high, low + 1), nan_color="rgba(0,0,0,0)")
    image_of(plot, image, float(edges[0]), float(edges[-1] - edges[0]), mapper)
    label_rows(plot, [_short(name) for name in names], 32)
    plot.yaxis.major_label_text_font_size = "10px"
    return Chart("Gradient of each layer", "power of ten of the L2 norm; the layers next to the pictures on top", plot)


def _marks(plot: figure, marks: Sequence[tuple[float, str]]) -> list[Key]:
    """Vertical lines, at most four, and their keys."""
    for x, _ in marks[:4]:
        plot.add_layout(span(x, COLOURS[6]))
    return [Key(name, COLOURS[6], "2 3") for _, name in marks[:4]]


def _positive(values: Sequence[float]) -> Floats:
    """A logarithm has no place for 0."""
    array = np.array(values, dtype=np.float64)
    return np.where(array > 0, array, np.nan)


def _short(name: str, length: int = 22) -> str:
    """The end of a long name: that is where layers differ."""
    return name if len(name) <= length else "…" + name[-length + 1 :]
