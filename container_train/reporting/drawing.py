"""How the profiler's charts are drawn: titles and keys are the page's, for a canvas neither wraps nor prints well."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    GlyphRenderer,
    HoverTool,
    Line,
    LinearColorMapper,
    NumeralTickFormatter,
    Span,
)
from bokeh.plotting import figure

from container_train.profiler.store import Floats
from container_train.reporting import style
from container_train.reporting.style import INK

LINES = 8  # layers or devices that are told apart by colour; more are shown as a map, or as their mean
COLOURS = ("#2f6fb3", "#d9772b", "#009e73", "#cc79a7", "#56b4e9", "#b08d00", "#882255", "#8a8f98")
DASHES = ("", "6 4", "2 3", "8 3 2 3", "", "6 4", "2 3", "8 3 2 3")  # pixels on and off
POINTS = 400  # of a curve over steps
TOOLS = "box_zoom,pan,reset,save"


@dataclass(frozen=True)
class Key:
    """What a colour means. `dash` in pixels on and off; `mark`: line, area or triangle."""

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
    """An empty figure; its tools show while the mouse is over it.

    None of them is in use: on a phone, a finger that drags is to move the page. For a mouse the page sets the box.
    """
    options = {"tools": TOOLS, "active_drag": None, **options}
    plot = style.plot("", height=height, **options)
    plot.title = None
    plot.toolbar.autohide = plot.toolbar_inner = True
    plot.min_border_right = 24  # half of the last label
    if x:
        plot.xaxis.axis_label = x
    if x == "step":
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return plot


def line(plot: figure, x: Any, y: Any, key: Key, width: float = 1.6, **more: Any) -> GlyphRenderer:
    """`more`: further columns of the data. Without the variants of a selection, of which there is none."""
    data = ColumnDataSource({"x": x, "y": y, **more})
    glyph = Line(x="x", y="y", line_color=key.colour, line_width=width, line_dash=[int(n) for n in key.dash.split()])
    renderer = plot.add_glyph(data, glyph)
    renderer.name = key.label
    return renderer


def hover(plot: figure, renderers: Sequence[GlyphRenderer], tips: Sequence[tuple[str, str]]) -> None:
    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=list(tips)))


def image_of(plot: figure, image: Floats, x: float, width: float, mapper: LinearColorMapper) -> None:
    """`image` (rows, columns), its first row on top, and what its colours mean below it."""
    plot.image(image=[image.astype(np.float32)], x=x, y=0, dw=width, dh=len(image), color_mapper=mapper)
    plot.grid.grid_line_color = None
    bar = ColorBar(color_mapper=mapper, height=7, padding=2, background_fill_alpha=0, major_label_text_color=INK)
    bar.bar_line_color = bar.major_tick_line_color = None
    plot.add_layout(bar, "below")


def label_rows(plot: figure, names: Sequence[str], most: int) -> None:
    """Label at most `most` of the rows."""
    shown = range(0, len(names), -(-len(names) // most))
    plot.yaxis.ticker = FixedTicker(ticks=[row + 0.5 for row in shown])
    plot.yaxis.major_label_overrides = {row + 0.5: names[row] for row in shown}


def span(x: float, colour: str) -> Span:
    return Span(location=x, dimension="height", line_color=colour, line_dash=[2, 3], line_width=1.6)


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most POINTS means of neighbours."""
    if len(x) <= POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[group].mean() for group in groups]), np.array([y[group].mean() for group in groups])
