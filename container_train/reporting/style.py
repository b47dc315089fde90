"""What the charts of all pages have in common: colours that the colour-blind can tell apart, one plain style."""

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, Title
from bokeh.plotting import figure

INK = "#7a828c"  # readable on the light and on the dark page
TRAIN, VALID = "#2f6fb3", "#d9772b"
BLUES = ["#eef3f9", "#d3e1f0", "#aecae6", "#7fadd8", "#528fc6", "#2f6fb3", "#1f5391", "#123a6b"]
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"


def plot(title: str, **options: Any) -> figure:
    """An empty figure as wide as its place on the page."""
    result = figure(
        title=Title(text=title, text_color=INK), sizing_mode="stretch_width", toolbar_location="above", **options
    )
    result.toolbar.logo = None
    result.background_fill_alpha = result.border_fill_alpha = 0
    result.outline_line_color = None
    result.grid.grid_line_color, result.grid.grid_line_alpha = INK, 0.2
    for axis in result.axis:
        axis.axis_label_text_color = axis.major_label_text_color = axis.axis_line_color = INK
        axis.major_tick_line_color = INK
        axis.minor_tick_line_color = None
    return result


def legend(result: figure, location: str) -> None:
    """Bring the legend of a figure that has one into the common style."""
    for item in result.legend:
        item.location = location
        item.background_fill_alpha = item.border_line_alpha = 0
        item.label_text_color = INK


def curves(epochs: Sequence[dict[str, float]], what: str, unit: str) -> figure:
    """Training and validation curve of `what` over the epochs."""
    result = plot(what, height=300, x_axis_label="epoch", y_axis_label=unit, tools=TOOLS)
    numbers = [int(row["epoch"]) for row in epochs]
    for split, colour, marker in (("train", TRAIN, "circle"), ("valid", VALID, "square")):
        data = ColumnDataSource({"x": numbers, "y": [row[f"{split}_{what}"] for row in epochs]})
        result.line("x", "y", source=data, color=colour, line_width=2, legend_label=split)
        dots = result.scatter("x", "y", source=data, color=colour, size=7, marker=marker, legend_label=split)
        tips = [("", split), ("epoch", "@x"), (what, "@y{0.0000}")]
        result.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    if numbers:
        result.xaxis.ticker = FixedTicker(ticks=numbers if len(numbers) <= 20 else numbers[:: len(numbers) // 10])
    legend(result, "top_right" if what == "loss" else "bottom_right")
    return result
