"""The common style of the charts of all pages: colours that the colour-blind can tell apart.

Titles and keys are the page's, for a canvas neither wraps nor prints well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    GlyphRenderer,
    HoverTool,
    Line,
    LinearColorMapper,
    NumeralTickFormatter,
    PrintfTickFormatter,
    Range1d,
    Span,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from container_train.profiler.store import Floats

INK = "#7a828c"  # readable on the light and on the dark page
TRAIN, VALID = "#2f6fb3", "#d9772b"
LINES = 8  # layers or devices that are told apart by colour; more are shown as a map, or as their mean
COLOURS = (TRAIN, VALID, "#009e73", "#cc79a7", "#56b4e9", "#b08d00", "#882255", "#8a8f98")
DASHES = ("", "6 4", "2 3", "8 3 2 3", "", "6 4", "2 3", "8 3 2 3")  # pixels on and off
POINTS = 400  # of a curve over steps
COUNTED = ("epoch", "step", "trial")  # axes of whole numbers
TOOLS = "box_zoom,pan,reset,save"


@dataclass(frozen=True)
class Key:
    """An entry of a chart's legend. `dash` in pixels; `mark`: line, area, dot, triangle, circle or square."""

    label: str
    colour: str
    dash: str = ""
    mark: str = "line"


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    plot: figure
    keys: list[Key] = field(default_factory=list)


def blank(height: int, x: str = "", **options: Any) -> figure:
    """An empty figure as wide as its place on the page; its tools show while the mouse is over it.

    None of them is in use: on a phone, a finger that drags is to move the page. For a mouse the page sets the box.
    """
    options = {"tools": TOOLS, "active_drag": None, "sizing_mode": "stretch_width", **options}
    plot = figure(height=height, toolbar_location="above", **options)
    plot.toolbar.logo = None
    plot.toolbar.autohide = plot.toolbar_inner = True
    plot.background_fill_alpha = plot.border_fill_alpha = 0
    plot.outline_line_color = None
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = INK, 0.2
    plot.min_border_left, plot.min_border_right = 52, 24  # axes of charts below each other align; half of a label
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = axis.axis_line_color = INK
        axis.major_tick_line_color = INK
        axis.minor_tick_line_color = None
    if x:
        plot.xaxis.axis_label = x
    if x in COUNTED:
        plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)  # there is no half of one
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return plot


def logarithmic(axis: Any, values: Floats, most: int = 4) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of each power of ten, or from `most` powers on at these alone."""
    known = np.log10(values[np.isfinite(values) & (values > 0)])
    low, high = (int(np.floor(known.min())), int(np.ceil(known.max()))) if len(known) else (0, 1)
    parts = (1, 2, 5) if high - low < most else (1,)
    axis.ticker = FixedTicker(ticks=[part * 10.0**power for power in range(low, high + 1) for part in parts])
    axis.formatter = PrintfTickFormatter(format="%g")


def line(plot: figure, x: Any, y: Any, key: Key, width: float = 1.6, **more: Any) -> GlyphRenderer:
    """`more`: further columns of the data. Without the variants of a selection, of which there is none."""
    data = ColumnDataSource({"x": x, "y": y, **more})
    glyph = Line(x="x", y="y", line_color=key.colour, line_width=width, line_dash=[int(n) for n in key.dash.split()])
    renderer = plot.add_glyph(data, glyph)
    renderer.name = key.label
    return renderer


def hover(plot: figure, renderers: Sequence[GlyphRenderer], tips: Sequence[tuple[str, str]]) -> None:
    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=list(tips)))


def over_epochs(
    title: str, what: str, curves: Mapping[Key, tuple[Sequence[Mapping[str, Any]], str]], height: int = 250
) -> Chart:
    """`curves`: of each key the epochs' metrics and the name of the one to draw. `what` says loss or accuracy."""
    plot = blank(height, "epoch")
    share = percent(plot, what)
    values = [row[column] for epochs, column in curves.values() for row in epochs]
    if share and np.isfinite(values).any():  # of equal values, and of one, the axis would end at 150 %
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        margin = max(0.05, (high - low) / 10)
        plot.y_range = Range1d(max(0.0, low - margin), min(1.0, high + margin))
    lines = []
    for key, (epochs, column) in curves.items():
        lines.append(line(plot, [row["epoch"] for row in epochs], [row[column] for row in epochs], key, 2))
        plot.scatter("x", "y", source=lines[-1].data_source, color=key.colour, size=6, marker=key.mark)
    hover(plot, lines, [("", "$name"), ("epoch", "@x"), (what, "@y{0.0 %}" if share else "@y{0.0000}")])
    return Chart(title, "share of the images" if share else "cross entropy", plot, list(curves))


def percent(plot: figure, metric: str) -> bool:
    """Label the y axis with percentages where the metric is an accuracy, and return whether it is."""
    if "accuracy" in metric:
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[0] %")
    return "accuracy" in metric


def held(x: Floats, y: Floats, edges: Floats, most: float = math.inf) -> Floats:
    """The newest value at the end of each column between `edges`; NaN where it is older than `most`."""
    newest = np.clip(np.searchsorted(x, edges[1:], side="left") - 1, 0, len(x) - 1)
    return np.where(np.abs(edges[1:] - x[newest]) <= most, y[newest], np.nan)


def heat_map(
    names: Sequence[str], image: Floats, x: tuple[float, float], colours: tuple[float, float], height: int,
    labels: int, x_label: str = "", **options: Any,
) -> figure:  # fmt: skip
    """A row for each name, the first on top, from `x` to `x`; at most `labels` of them are labelled."""
    plot = blank(height, x_label, y_range=Range1d(len(names), 0), **options)
    mapper = LinearColorMapper(palette=Cividis256, low=colours[0], high=colours[1], nan_color="rgba(0,0,0,0)")
    plot.image(image=[image.astype(np.float32)], x=x[0], y=0, dw=x[1] - x[0], dh=len(image), color_mapper=mapper)
    plot.grid.grid_line_color = None
    plot.add_layout(colour_bar(mapper), "below")
    shown = range(0, len(names), -(-len(names) // labels))
    plot.yaxis.ticker = FixedTicker(ticks=[row + 0.5 for row in shown])
    plot.yaxis.major_label_overrides = {row + 0.5: names[row] for row in shown}
    return plot


def colour_bar(mapper: LinearColorMapper) -> ColorBar:
    bar = ColorBar(color_mapper=mapper, height=7, padding=2, background_fill_alpha=0, major_label_text_color=INK)
    bar.bar_line_color = bar.major_tick_line_color = None
    return bar


def span(x: float, colour: str) -> Span:
    return Span(location=x, dimension="height", line_color=colour, line_dash=[2, 3], line_width=1.6)


def groups(count: int) -> list[Any]:
    """The indices of `count` values as at most POINTS groups of neighbours."""
    return np.array_split(np.arange(count), min(count, POINTS)) if count else []


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most POINTS means of neighbours."""
    parts = groups(len(x))
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
