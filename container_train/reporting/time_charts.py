"""Charts over the time of the job: its phases, and how busy the machine was."""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper, PrintfTickFormatter, Range1d
from bokeh.palettes import Cividis256

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
)
from container_train.reporting.record import Record
from container_train.reporting.style import VALID
from container_train.reporting.summary import OTHER, PHASES
from container_train.reporting.usage import Curve
from container_train.reporting.words import rate

TIME_TOOLS = "xbox_zoom,xpan,reset,save"
LEFT = 84  # pixels for the labels of the left axis, the same where charts have a time axis in common


def over_time(record: Record) -> dict[str, Chart]:
    """Phases and the use of the machine, one below the other on one axis: zooming one zooms all."""
    length = record.clock.length
    if not length or not (record.timeline.phases or record.usage):
        return {}
    unit, seconds = ("s", 1.0) if length < 180 else ("min", 60.0) if length < 3 * 3600 else ("h", 3600.0)
    axis = Range1d(0, length / seconds, bounds=(0, length / seconds))
    use = record.usage
    drawn: dict[str, Chart] = {}
    if record.timeline.phases:
        drawn["phases"] = _phases(record, seconds, axis)
    for name, title, label, curves in (
        ("gpu", "GPU", "% busy", use.gpu),
        ("cpu", "CPU", "% busy", use.cpu),
        ("memory", "Memory", "% used", use.memory),
        ("disk", "Disk", "MB/s", use.disk),
        ("network", "Network", "MB/s", use.network),
        ("power", "GPU power", "W", use.power),
        ("temperature", "GPU temperature", "°C", use.temperature),
    ):
        if curves:
            drawn[name] = _curves(title, label, curves, seconds, axis)
    if len(use.cores) > 1:
        drawn["cores"] = _cores(use.cores, length, seconds, axis)
    for chart in drawn.values():
        chart.plot.min_border_left, chart.plot.min_border_right = LEFT, 30
        chart.plot.xaxis.formatter = PrintfTickFormatter(format=f"%g {unit}")
        for where, _ in record.clock.breaks:
            chart.plot.add_layout(span(where / seconds, VALID))
    return drawn


def _phases(record: Record, seconds: float, axis: Range1d) -> Chart:
    names = [name for name in PHASES if any(phase.name == name for phase in record.timeline.phases)]
    names += sorted({phase.name for phase in record.timeline.phases} - set(names))
    rows = []
    for name in names:
        own = sorted((phase for phase in record.timeline.phases if phase.name == name), key=lambda phase: phase.start)
        edges = record.clock([edge for phase in own for edge in (phase.start, phase.end)]).reshape(-1, 2)
        joined: list[list[float]] = []
        for start, end in edges.tolist():
            # What no screen could tell apart is drawn as one.
            if joined and start - joined[-1][1] < record.clock.length / 2000:
                joined[-1][1:] = [max(joined[-1][1], end), joined[-1][2] + 1]
            else:
                joined.append([start, end, 1])
        rows += [(name, start / seconds, end / seconds, end - start, int(times)) for start, end, times in joined]
    plot = blank(30 + 18 * len(names), y_range=names[::-1], x_range=axis, tools=TIME_TOOLS)
    columns = dict(zip(("name", "left", "right", "took", "times"), map(list, zip(*rows, strict=True)), strict=True))
    data = ColumnDataSource({**columns, "colour": [PHASES.get(row[0], ("", OTHER))[1] for row in rows]})
    bars = plot.hbar(y="name", left="left", right="right", height=0.7, source=data, color="colour")
    hover(plot, [bars], [("", "@name"), ("took", "@took{0.0} s"), ("times", "@times")])
    plot.ygrid.grid_line_color = None
    return Chart("Phases", "of the job", plot)


def _curves(title: str, unit: str, curves: Sequence[Curve], seconds: float, axis: Range1d) -> Chart:
    percent = unit.startswith("%")
    curves = curves if len(curves) <= LINES else [_mean(curves)]
    # The highest of the means: a single moment at thrice the rest would press all of it flat.
    top = 100.0 if percent else max(1.0, *(float(np.nanmax(curve.mean)) * 1.1 for curve in curves))
    plot = blank(118, y_range=Range1d(0, top * 1.04), x_range=axis, tools=TIME_TOOLS)
    keys, lines, word = [], [], unit.split()[0]
    for index, curve in enumerate(curves):
        label = f"{curve.label}: {rate(curve.average)} {word} on average"
        keys.append(Key(label, COLOURS[index % 8], DASHES[index % 8]))
        lines.append(line(plot, curve.x / seconds, curve.mean, keys[-1], 1.4, top=curve.maximum))
    hover(plot, lines, [("", "$name"), ("here", "@y{0.0} " + word), ("at most", "@top{0.0} " + word)])
    return Chart(title, unit, plot, keys)


def _mean(curves: Sequence[Curve]) -> Curve:
    short = min(len(curve.x) for curve in curves)
    return Curve(
        f"mean of {len(curves)}", curves[0].x[:short], np.mean([curve.mean[:short] for curve in curves], axis=0),
        np.max([curve.maximum[:short] for curve in curves], axis=0), float(np.mean([c.average for c in curves])),
        max(curve.peak for curve in curves),
    )  # fmt: skip


def _cores(cores: Sequence[Curve], length: float, seconds: float, axis: Range1d) -> Chart:
    """A row for each core, the colour is how busy it was."""
    columns = max(2, min(POINTS, max(len(core.x) for core in cores)))
    width = length / columns
    middles = (np.arange(columns) + 0.5) * width
    image = np.full((len(cores), columns), np.nan)
    for row, core in enumerate(cores):
        good = np.isfinite(core.mean)
        nearest = np.clip(np.searchsorted(core.x[good], middles), 0, max(0, int(good.sum()) - 1))
        near = np.abs(core.x[good][nearest] - middles) < 5 * width
        image[row] = np.where(near, core.mean[good][nearest], np.nan)
    height = 60 + max(36, min(320, 10 * len(cores)))
    plot = blank(height, y_range=Range1d(len(cores), 0), x_range=axis, tools=TIME_TOOLS)
    mapper = LinearColorMapper(palette=Cividis256, low=0, high=100, nan_color="rgba(0,0,0,0)")
    image_of(plot, image, 0, length / seconds, mapper)
    label_rows(plot, [core.label for core in cores], 8)
    return Chart("CPU, each core", "% busy", plot)
