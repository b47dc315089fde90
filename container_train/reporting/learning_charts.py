"""Charts of the learning: loss, accuracy, and the gradient of each layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from bokeh.models import Range1d
from bokeh.plotting import figure

from container_train.profiler.store import Floats
from container_train.reporting import drawing
from container_train.reporting.drawing import Chart, Key
from container_train.reporting.measures import best_epoch
from container_train.reporting.record import Record

CURVES = (Key("train", drawing.TRAIN, mark="circle"), Key("valid", drawing.VALID, mark="square"))
MARKS = 4  # of rules that fired

Mark = tuple[float, str]  # steps that were done when a rule first fired, and its title


def learning(record: Record, marks: Sequence[Mark] = ()) -> dict[str, Chart]:
    """Those that there is something to draw for, by name. `marks` of the rules that fired."""
    drawn: dict[str, Chart] = {}
    single = bool(record.losses["step"]) and record.steps_per_epoch > 0
    best = best_epoch(record).get("epoch", 0)
    if record.epochs or single:
        drawn["loss"] = curves(record.epochs, "loss", best)
    if single:
        _single_steps(drawn["loss"], record.losses, record.steps_per_epoch, record.head_epochs)
        _mark(drawn["loss"], marks, record.steps_per_epoch, record.head_epochs)
    if record.epochs:
        drawn["accuracy"] = curves(record.epochs, "accuracy", best)
    gradients = {name: series for name, series in record.gradients.items() if series["step"]}
    if len(gradients) > drawing.LINES:
        drawn["gradients"] = _gradient_map(gradients)
    elif gradients:
        drawn["gradients"] = _gradient_lines(gradients)
        _mark(drawn["gradients"], marks)
    return drawn


def curves(epochs: Sequence[dict[str, float]], what: str, best: int = 0) -> Chart:
    """`what`, loss or accuracy, of training and validation; the `best` epoch, if there is one, is marked."""
    of = {key: (epochs, f"{key.label}_{what}") for key in CURVES} if epochs else {}
    chart = drawing.over_epochs(what.capitalize(), what, of)
    if best and len(epochs) > 1:
        chart.plot.add_layout(drawing.span(best, drawing.INK))
        chart.keys.append(Key(f"best epoch, {best}", drawing.INK, "2 3"))
    return chart


def _single_steps(chart: Chart, losses: Mapping[str, list[float]], an_epoch: float, before: float) -> None:
    """Behind the curves, thin, the loss of the steps whose tensors were saved; they begin after `before` epochs."""
    x, y = drawing.thinned(np.array(losses["step"]), np.array(losses["value"]))
    chart.keys.append(Key("train, single steps", "#7fadd8"))
    drawing.line(chart.plot, before + (x + 1) / an_epoch, y, chart.keys[-1], 1).level = "underlay"


def _mark(chart: Chart, marks: Sequence[Mark], per: float = 1, first: float = 0) -> None:
    """Vertical lines and their keys, on an axis with `per` steps in a unit, the first at `first`.

    A glyph, unlike an annotation, makes room for itself on the axis.
    """
    for steps, title in marks[:MARKS]:
        x = first + steps / per
        chart.plot.add_layout(drawing.span(x, drawing.COLOURS[6]))
        chart.plot.vspan(x=[x], line_alpha=0)
        chart.keys.append(Key(f"{title} first fired, after {steps:.0f} steps", drawing.COLOURS[6], "2 3"))


def _gradient_lines(gradients: Mapping[str, Mapping[str, list[float]]]) -> Chart:
    """The norm of the gradient of each layer over the steps."""
    plot: figure = drawing.blank(250, "step", y_axis_type="log")
    drawing.logarithmic(plot.yaxis, np.concatenate([series["norm"] for series in gradients.values()]))
    keys = [Key(name, drawing.COLOURS[i], drawing.DASHES[i]) for i, name in enumerate(gradients)]
    lines = [
        drawing.line(plot, *drawing.thinned(np.array(series["step"]), _positive(series["norm"])), key)
        for key, series in zip(keys, gradients.values(), strict=True)
    ]
    drawing.hover(plot, lines, [("", "$name"), ("step", "@x{0}"), ("norm", "@y{0.00e+0}")])
    return Chart("Gradient of each layer", "L2 norm, logarithmic", plot, keys)


def _gradient_map(gradients: Mapping[str, Mapping[str, list[float]]]) -> Chart:
    """A row for each layer, the one next to the images on top; the colour is the power of ten of the norm."""
    steps = np.unique(np.concatenate([series["step"] for series in gradients.values()]))
    columns = int(min(steps[-1] - steps[0] + 1, drawing.POINTS))
    edges = np.linspace(steps[0], steps[-1] + 1, columns + 1)
    # What was saved last holds until the next saved step: the job saves them at growing distances.
    image = np.stack(
        [drawing.held(np.array(g["step"]), np.log10(_positive(g["norm"])), edges) for g in gradients.values()]
    )
    known = image[np.isfinite(image)]
    low, high = (float(np.floor(known.min())), float(np.ceil(known.max()))) if len(known) else (-1.0, 0.0)
    ends = float(edges[0]), float(edges[-1])
    names = [name if len(name) <= 22 else "…" + name[-21:] for name in gradients]  # layers differ at their ends
    height = max(220, min(520, 90 + 10 * len(names)))
    plot = drawing.heat_map(names, image, ends, (low, max(high, low + 1)), height, 32, "step", x_range=Range1d(*ends))
    plot.yaxis.major_label_text_font_size = "10px"
    return Chart("Gradient of each layer", "power of ten of the L2 norm; the layers next to the images on top", plot)


def _positive(values: Sequence[float]) -> Floats:
    """A logarithm has no place for 0."""
    array = np.array(values, dtype=np.float64)
    return np.where(array > 0, array, np.nan)
