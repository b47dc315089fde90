"""The charts of a search: its history, its hyperparameters against the objective, their importance, its curves."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, NumeralTickFormatter
from bokeh.plotting import figure

from container_train.reporting.drawing import COLOURS, INK, Chart, Key, blank, hover, logarithmic, over_epochs, percent
from scripts.tuning.space import Choice, Range, Value
from scripts.tuning.trials import Search, Trial, is_number, words

HEIGHT = 300
BEST = "#c2341d"  # readable on the light and on the dark page
CHIP = {
    "text_color": "white", "background_fill_color": "#5d6773", "border_radius": 3, "padding": 2,
    "text_font_size": "11px", "text_align": "center", "text_baseline": "middle",
}  # fmt: skip  # values on the lines of the trials: readable over them, on the light and on the dark page
CROWDED = 4  # axes whose names have room side by side on a phone
CURVES = 60  # trials whose curves are drawn: the best and the newest


def history(search: Search) -> Chart:
    """The objective of each trial in their order, and the best so far."""
    rated = _rated(search)
    plot = blank(HEIGHT, "trial")
    better = max if search.space.maximises else min
    best = list(itertools.accumulate((trial.value or 0.0 for trial in rated), better))
    plot.step([t.number for t in rated], best, mode="after", line_color=BEST, line_width=2)
    _dots(plot, search, rated, [t.number for t in rated])
    keys = [Key("a trial", COLOURS[0], mark="dot"), Key("best so far", BEST)]
    return Chart("History", search.space.objective, plot, keys)


def against(search: Search, name: str, part: Range) -> Chart:
    """The objective over a hyperparameter."""
    rated = _rated(search)
    values = [float(trial.parameters[name]) for trial in rated]
    low, high = min([part.low, *values]), max([part.high, *values])  # of a warm start, also outside of the range
    label, kind, ends = name, "linear", (low - (high - low) / 20, high + (high - low) / 20)
    if part.logarithmic:
        label, kind, ends = f"{name}, logarithmic", "log", (low / 1.15, high * 1.15)
    plot = blank(HEIGHT, label, x_axis_type=kind, x_range=ends)
    if part.logarithmic:
        logarithmic(plot.xaxis, np.array([low, high]), 2)  # side by side on a phone
    _dots(plot, search, rated, values)
    return Chart(f"{name} and {search.space.objective}", "each dot a trial", plot)


def parallel(search: Search) -> Chart:
    """A line for each trial through an axis for each hyperparameter and one for the objective; the best are darkest."""
    sign = 1 if search.space.maximises else -1
    order = sorted(_rated(search), key=lambda trial: (sign * (trial.value or 0.0), -trial.number))  # as Search.best
    names = [*search.space.searched, search.space.objective]
    values = [trial.value or 0.0 for trial in order]
    # The objective has an axis as a hyperparameter has; a single value lies at its middle.
    low, high = (min(values), max(values)) if min(values) < max(values) else (values[0] - 1, values[0] + 1)
    axes = {**search.space.searched, search.space.objective: Range(low, high, logarithmic=False, whole=False)}
    plot = blank(HEIGHT + 40, x_range=(-0.35, len(names) - 0.65), y_range=(-0.12, 1.12))
    data = ColumnDataSource(
        {
            "xs": [list(range(len(names)))] * len(order),
            "ys": [
                [_place(axes[name], {**trial.parameters, search.space.objective: value}[name]) for name in names]
                for trial, value in zip(order, values, strict=True)
            ],
            "colour": [COLOURS[0]] * (len(order) - 1) + [BEST],
            "alpha": [0.15 + 0.75 * rank / max(1, len(order) - 1) for rank in range(len(order))],
            "width": [1.2] * (len(order) - 1) + [3.0],
            **_columns(search, order),
        }
    )
    drawn = plot.multi_line("xs", "ys", source=data, line_color="colour", line_width="width", line_alpha="alpha")
    hover(plot, [drawn], _tips(search))
    for at, name in enumerate(names):
        plot.line([at, at], [0, 1], line_color=INK, line_width=1)
        axis = axes[name]
        ends = list(axis.values if isinstance(axis, Choice) else (axis.low, axis.high))
        text = [f"{100 * end:.1f} %" if "accuracy" in name else words(end) for end in ends]
        plot.text([at] * len(ends), [_place(axis, end) for end in ends], text, **CHIP)
    plot.xaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    marked = [f"{n}, log" if isinstance(p, Range) and p.logarithmic else n for n, p in axes.items()]
    plot.xaxis.major_label_overrides = dict(enumerate(marked))
    if len(names) > CROWDED:
        plot.xaxis.major_label_orientation = 0.5
    plot.yaxis.visible = False
    plot.grid.grid_line_color = None
    return Chart("All trials at once", "one line per trial, darker is better; red the best", plot)


def importance(shares: Mapping[str, float]) -> Chart:
    """The share of each hyperparameter in what sets the best trials apart."""
    names = sorted(shares, key=lambda name: shares[name])
    plot = blank(70 + 34 * len(names), y_range=names, x_range=(0, 1))
    data = ColumnDataSource({"name": names, "share": [shares[name] for name in names]})
    drawn = plot.hbar("name", right="share", height=0.6, source=data, color=COLOURS[0])
    hover(plot, [drawn], [("", "@name"), ("share", "@share{0 %}")])
    plot.xaxis.formatter = NumeralTickFormatter(format="0 %")
    return Chart("Importance", "share in what sets the best trials apart (PED-ANOVA)", plot)


def curves(search: Search, metric: str) -> Chart | None:
    """`metric` over the epochs, one line per trial. None where no log has it."""
    best = search.best
    others = [trial for trial in search.trials if best is None or trial.number != best.number]
    drawn = {
        Key(f"trial {trial.number}", BEST if trial is best else COLOURS[0], mark="circle"): (found, metric)
        for trial in [*others[-CURVES:], *([best] if best else [])]
        if (found := [e for e in trial.epochs if is_number(e.get(metric)) and "epoch" in e])
    }
    if not drawn:
        return None
    keys = [Key("the best trial", BEST), Key("the others", COLOURS[0])]
    return replace(over_epochs(metric, metric, drawn, HEIGHT), unit="over the epochs", keys=keys)


def _rated(search: Search) -> list[Trial]:
    return [trial for trial in search.trials if is_number(trial.value)]


def _dots(plot: figure, search: Search, trials: Sequence[Trial], x: Sequence[Value]) -> None:
    data = ColumnDataSource({"x": list(x), "y": [trial.value for trial in trials], **_columns(search, trials)})
    hover(plot, [plot.scatter("x", "y", source=data, color=COLOURS[0], size=8, alpha=0.85)], _tips(search))
    percent(plot, search.space.objective)


def _columns(search: Search, trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Return the text of a trial's tip."""
    columns = {"trial": [str(t.number) for t in trials], "value": [words(t.value) for t in trials]}
    for index, name in enumerate(search.space.searched):
        columns[f"p{index}"] = [words(trial.parameters.get(name)) for trial in trials]
    return columns


def _tips(search: Search) -> list[tuple[str, str]]:
    own = [(name, f"@p{index}") for index, name in enumerate(search.space.searched)]
    return [("trial", "@trial"), (search.space.objective, "@value"), *own]


def _place(part: Range | Choice, value: Any) -> float:
    """0 to 1 on the axis of a hyperparameter."""
    if isinstance(part, Choice):
        return part.values.index(value) / max(1, len(part.values) - 1) if value in part.values else 0.0
    low, high, at = part.low, part.high, float(value)
    if part.logarithmic:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)
