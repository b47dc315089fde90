"""Charts over the time of the job: its phases, and how busy the machine was."""

from collections.abc import Sequence

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, PrintfTickFormatter, Range1d

from container_train.reporting import drawing
from container_train.reporting.drawing import Chart, Key
from container_train.reporting.record import Record
from container_train.reporting.summary import OTHER, PHASES
from container_train.reporting.usage import Curve
from container_train.reporting.words import rate

TIME_TOOLS = "xbox_zoom,xpan,reset,save"
LEFT = 84  # pixels for the labels of the left axis, the same where charts have a time axis in common
MOST = 16  # curves of a chart
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
    plot = drawing.blank(30 + 18 * len(names), y_range=names[::-1], x_range=axis, tools=TIME_TOOLS)
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
    drawing.hover(plot, [drawn], [("", "@name"), ("took", "@took{0.0} s")])
    plot.ygrid.grid_line_color = None
    return Chart("Phases", "of the job", plot)


def _curves(title: str, unit: str, curves: Sequence[Curve], seconds: float, axis: Range1d) -> Chart:
    # The highest of the means: a single moment at thrice the rest would press all of it flat.
    highest = max(1.0, *(float(np.nanmax(curve.mean)) * 1.1 for curve in curves))
    top = 100.0 if unit.startswith("%") else highest
    plot = drawing.blank(118, y_range=Range1d(0, top * 1.04), x_range=axis, tools=TIME_TOOLS)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4, num_minor_ticks=0)
    keys, lines, word = [], [], unit.split()[0]
    for index, curve in enumerate(curves[:MOST]):
        label = f"{curve.label}: {rate(curve.average)} {word} on average"
        keys.append(Key(label, drawing.COLOURS[index % 8], drawing.DASHES[(index + index // 8) % 8]))
        lines.append(drawing.line(plot, curve.x / seconds, curve.mean, keys[-1], 1.4, top=curve.maximum))
    drawing.hover(plot, lines, [("", "$name"), ("here", "@y{0.0} " + word), ("at most", "@top{0.0} " + word)])
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
