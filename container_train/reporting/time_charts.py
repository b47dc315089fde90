"""Charts over the time of the job, its phases and how busy the machine was, and of the times of its steps."""

from collections.abc import Sequence

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, NumeralTickFormatter, PrintfTickFormatter, Range1d

from container_train.profiler.store import Floats, Steps
from container_train.reporting import drawing
from container_train.reporting.drawing import TRAIN, VALID, Chart, Key, blank, groups, hover, line
from container_train.reporting.record import Record
from container_train.reporting.summary import OTHER, PARTS, PHASES
from container_train.reporting.usage import Curve
from container_train.reporting.words import duration, rate

TIME_TOOLS = "xbox_zoom,xpan,reset,save"
LEFT = 84  # pixels for the labels of the left axis, the same where charts have a time axis in common
MOST = 16  # curves of a chart
BARS = 60  # at most
OUTLIERS = 300  # that are drawn
OUTLIER = 3.0  # times the median
CURVES = {  # a chart of Usage: (title, unit)
    "gpu": ("GPU", "% busy"),
    "cpu": ("CPU", "% busy"),
    "memory": ("Memory", "% used"),
    "disk": ("Disk", "MB/s"),
    "network": ("Network", "MB/s"),
    "power": ("GPU power", "W"),
    "temperature": ("GPU temperature", "°C"),
}


def over_time(record: Record) -> dict[str, Chart]:
    """Phases and the use of the machine, one below the other on one axis: zooming one zooms all."""
    length = record.clock.length
    if not length:
        return {}
    unit, seconds = ("s", 1.0) if length < 180 else ("min", 60.0) if length < 3 * 3600 else ("h", 3600.0)
    axis = Range1d(0, length / seconds, bounds=(0, length / seconds))
    drawn = {"phases": _phases(record, seconds, axis)} if record.phases else {}
    for name, (title, label) in CURVES.items():
        curves = record.usage[name]
        # That nothing went over the network needs no chart; that a GPU did nothing does.
        if curves and (label != "MB/s" or any(rate(curve.peak) != "0" for curve in curves)):
            drawn[name] = _curves(title, label, curves, seconds, axis)
    if len(record.usage["cores"]) > 1:
        drawn["cores"] = _cores(record.usage["cores"], length, seconds, axis)
    for chart in drawn.values():
        chart.plot.min_border_left, chart.plot.min_border_right = LEFT, 30
        chart.plot.xaxis.formatter = PrintfTickFormatter(format=f"%g {unit}")
    return drawn


def _phases(record: Record, seconds: float, axis: Range1d) -> Chart:
    found = {phase.name for phase in record.phases}
    names = [name for name in PHASES if name in found] + sorted(found - PHASES.keys())
    left, right = (record.clock([getattr(phase, edge) for phase in record.phases]) for edge in ("start", "end"))
    plot = blank(30 + 18 * len(names), y_range=names[::-1], x_range=axis, tools=TIME_TOOLS)
    data = ColumnDataSource(
        {
            "name": [phase.name for phase in record.phases],
            "left": left / seconds,
            "right": right / seconds,
            "took": right - left,
            "colour": [PHASES.get(phase.name, ("", OTHER))[1] for phase in record.phases],
        }
    )
    drawn = plot.hbar(y="name", left="left", right="right", height=0.7, source=data, color="colour")
    hover(plot, [drawn], [("", "@name"), ("took", "@took{0.0} s")])
    plot.ygrid.grid_line_color = None
    return Chart("Phases", "of the job", plot)


def _curves(title: str, unit: str, curves: Sequence[Curve], seconds: float, axis: Range1d) -> Chart:
    # The highest of the means: a single moment at thrice the rest would press all of it flat.
    highest = max(1.0, *(float(np.nanmax(curve.mean)) * 1.1 for curve in curves))
    top = 100.0 if unit.startswith("%") else highest
    plot = blank(118, y_range=Range1d(0, top * 1.04), x_range=axis, tools=TIME_TOOLS)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4, num_minor_ticks=0)
    keys, lines, word = [], [], unit.split()[0]
    for index, curve in enumerate(curves[:MOST]):
        label = f"{curve.label}: {rate(curve.average)} {word} on average"
        keys.append(Key(label, drawing.COLOURS[index % 8], drawing.DASHES[(index + index // 8) % 8]))
        lines.append(line(plot, curve.x / seconds, curve.mean, keys[-1], 1.4, top=curve.maximum))
    hover(plot, lines, [("", "$name"), ("here", "@y{0.0} " + word), ("at most", "@top{0.0} " + word)])
    more = f", the first {MOST} of {len(curves)}" if len(curves) > MOST else ""
    return Chart(title, unit + more, plot, keys)


def _cores(cores: Sequence[Curve], length: float, seconds: float, axis: Range1d) -> Chart:
    """A row for each core, the colour is how busy it was."""
    columns = max(2, min(drawing.POINTS, max(len(core.x) for core in cores)))
    edges = np.linspace(0, length, columns + 1, dtype=np.float64)
    image = np.stack([drawing.held(core.x, core.mean, edges, 5 * edges[1]) for core in cores])
    height, names = 60 + max(36, min(320, 10 * len(cores))), [core.label for core in cores]
    plot = drawing.heat_map(names, image, (0, length / seconds), (0, 100), height, 8, x_range=axis, tools=TIME_TOOLS)
    return Chart("CPU, each core", "% busy", plot)


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
