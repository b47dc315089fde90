"""Charts of the steps' times: how long they took, which took far longer, and what of."""

import numpy as np
from bokeh.models import ColumnDataSource, NumeralTickFormatter, Range1d

from container_train.profiler.store import Floats, Steps
from container_train.reporting import drawing
from container_train.reporting.drawing import TRAIN, VALID, Chart, Key, blank, groups, hover, line
from container_train.reporting.summary import PARTS
from container_train.reporting.words import duration

BARS = 60  # at most
OUTLIERS = 300  # that are drawn
OUTLIER = 3.0  # times the median


def of_steps(steps: Steps) -> dict[str, Chart]:
    """Those that there is something to draw for, by name."""
    if (steps.total > 0).sum() < 2:
        return {}
    return {"histogram": histogram(steps), "step_times": step_times(steps)}


def unit_of(total: Floats) -> tuple[str, float]:
    """The unit that the times of most steps read well in, and how many of it a second has."""
    return ("s", 1.0) if np.nanmedian(total) >= 1 else ("ms", 1000.0)


def step_times(steps: Steps) -> Chart:
    """Median and 5th to 95th percentile of the time of a step, and single steps that took far longer."""
    good = np.isfinite(steps.total) & (steps.total > 0)
    unit, scale = unit_of(steps.total)
    x, y = steps.number[good].astype(float), steps.total[good] * scale
    parts = groups(len(y))
    middle = np.array([x[part].mean() for part in parts])
    low, median, high = (np.array([np.percentile(y[part], q) for part in parts]) for q in (5, 50, 95))
    plot = blank(240, "step", y_axis_type="log")
    drawing.logarithmic(plot.yaxis, y)
    keys = [Key("median", TRAIN), Key("5 % to 95 % of the steps", "#c3d6ea", mark="area")]
    plot.varea(middle, low, high, fill_color=TRAIN, fill_alpha=0.25)
    curve = line(plot, middle, median, keys[0])
    hover(plot, [curve], [("step", "@x{0}"), ("median", f"@y{{0.0}} {unit}")])
    slow = np.flatnonzero(y > OUTLIER * np.median(y))
    slow = slow[np.argsort(-y[slow])][:OUTLIERS]
    if len(slow):
        keys.append(Key(f"over {OUTLIER:g} times the median", VALID, mark="triangle"))
        columns = {part: (getattr(steps, part)[good] * scale)[slow] for part in PARTS}
        data = ColumnDataSource({"x": x[slow], "y": y[slow], "epoch": steps.epoch[good][slow], **columns})
        marks = plot.scatter("x", "y", source=data, marker="triangle", size=6, color=VALID, line_color=None)
        tips = [("step", "@x{0}"), ("epoch", "@epoch"), ("took", f"@y{{0.0}} {unit}")]
        hover(plot, [marks], tips + [(label, f"@{part}{{0.00}} {unit}") for part, (label, _) in PARTS.items()])
    return Chart("Time of a step over the training", f"{unit}, logarithmic", plot, keys)


def histogram(steps: Steps) -> Chart:
    """Distribution of the time of a step; the few that took longest are counted in the last bar."""
    known = np.isfinite(steps.total)
    unit, scale = unit_of(steps.total)
    total, weight = steps.total[known] * scale, steps.weight[known]
    p50, p95, p99 = np.percentile(total, [50, 95, 99])
    low, high = float(total.min()), float(min(total.max(), max(p99 * 1.3, p50 * 2)))
    bars = int(np.clip(2 * np.sqrt(len(total)), 8, BARS))
    edges = np.linspace(low, high if high > low else low + 1, bars + 1)
    counts, _ = np.histogram(np.minimum(total, edges[-1]), edges, weights=weight)
    top = float(counts.max()) * 1.1 or 1.0
    plot = blank(240, unit, y_range=Range1d(0, top))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    data = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "top": counts})
    quads = plot.quad(
        left="left", right="right", top="top", bottom=0, source=data, fill_color=TRAIN, line_color=None, fill_alpha=0.85
    )
    hover(plot, [quads], [("from", f"@left{{0.00}} {unit}"), ("to", f"@right{{0.00}} {unit}"), ("steps", "@top{0}")])
    keys = []
    for value, name, dash in ((p50, "median", ""), (p95, "95 %", "6 4"), (p99, "99 %", "2 3")):
        keys.append(Key(f"{name}: {duration(value / scale)}", VALID, dash))
        line(plot, [value, value], [0, top], keys[-1])
    over = int(weight[total > edges[-1]].sum())
    counted = f"number of steps; {over} took over {duration(high / scale)}" if over else "number of steps"
    return Chart("Time of a step", counted, plot, keys)
