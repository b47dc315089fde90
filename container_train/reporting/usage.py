"""The time axis of a job, and on it curves of the machine's use, thinned to what a chart can show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from container_train.profiler import store
from container_train.profiler.evidence import at
from container_train.profiler.store import Floats, Series, System, Timeline

COLUMNS = 600  # points of a curve: more than that no screen shows
MEGABYTE = 1e6


@dataclass(frozen=True)
class Clock:
    """From the first to the last sign of life of a job, in seconds since 1970."""

    start: float = 0.0
    end: float = 0.0

    @property
    def length(self) -> float:
        return self.end - self.start

    def __call__(self, times: Floats | list[float]) -> Floats:
        """Seconds on the axis for seconds since 1970; those outside of it fall on its ends."""
        return np.clip(np.asarray(times, dtype=np.float64) - self.start, 0, self.length)


def clock(timeline: Timeline, samples: list[Series], signs: list[Any]) -> Clock:
    """`signs` are further moments at which the job lived, such as its start, in seconds since 1970."""
    steps = timeline.steps
    moments = [float(sign) for sign in signs if isinstance(sign, int | float)]
    moments += [edge for phase in timeline.phases for edge in (phase.start, phase.end)]
    ends, sampled = steps.start + steps.total * steps.weight, [series.times for series in samples]
    seen: Floats = np.concatenate([steps.start, ends, *sampled, np.array(moments)])
    known = seen[np.isfinite(seen) & (seen > 0)]
    return Clock(float(known.min()), float(known.max())) if len(known) else Clock()


@dataclass(frozen=True)
class Curve:
    """`x` seconds on the job's clock; `mean` and `maximum` of what was measured around them."""

    label: str
    x: Floats
    mean: Floats
    maximum: Floats
    average: float
    peak: float


Usage = Mapping[str, list[Curve]]  # in % (cpu, cores, memory, gpu), MB/s (disk, network), W and degrees Celsius


def measure(system: System, clock: Clock) -> Usage:
    """All of it, on the job's clock."""
    several = len(system.nodes()) > 1

    def curve(label: str, name: str, node: str, series: Series) -> list[Curve]:
        device = name.replace("gpu", "GPU ").replace("cpu", "core ")
        drawn = thin(f"{node if several else ''} {label.replace('{}', device)}".strip(), series, clock)
        return [drawn] if drawn else []

    def curves(dimension: str, label: str, unit: float = 1.0) -> list[Curve]:
        """One for each device; `{}` in the label is its name."""
        found = system.series(dimension).items()
        return [c for (node, name), s in found for c in curve(label, name, node, Series(s.times, s.values / unit))]

    def together(dimension: str, label: str) -> list[Curve]:
        """The mean over the cores of each node."""
        result = []
        for node in system.nodes():
            own = list(system.series(dimension, node).values())
            if own:
                mean = np.mean([at(series, own[0].times) for series in own], axis=0)
                result += curve(label, "", node, Series(own[0].times, mean))
        return result

    return {
        "cpu": curves(store.CONTAINER_CPU, "the container, of what it may use")
        + together(store.CPU, f"all {len(system.series(store.CPU))} cores of the machine")
        + together(store.IO_WAIT, "waiting for the disk"),
        "cores": curves(store.CPU, "{}"),
        "gpu": curves(store.GPU, "{}"),
        "memory": curves(store.MEMORY, "main memory") + curves(store.GPU_MEMORY, "{} memory"),
        "disk": curves(store.READ, "read", MEGABYTE) + curves(store.WRITTEN, "written", MEGABYTE),
        "network": curves(store.RECEIVED, "received", MEGABYTE) + curves(store.SENT, "sent", MEGABYTE),
        "power": curves(store.GPU_POWER, "{}"),
        "temperature": curves(store.GPU_TEMPERATURE, "{}"),
    }


def thin(label: str, series: Series, clock: Clock) -> Curve | None:
    """Mean and maximum in at most COLUMNS equal parts of the job's time; None of a series without numbers."""
    good = np.isfinite(series.times) & np.isfinite(series.values)
    times, values = series.times[good], series.values[good]
    if not len(times):
        return None
    x = clock(times)
    interval = float(np.median(np.diff(np.sort(x)))) if len(x) > 1 else 1.0
    width = max(clock.length / COLUMNS, interval, 1e-3)
    column = (x / width).astype(np.int64)
    counts, sums = np.bincount(column), np.bincount(column, weights=values)
    maxima = np.full(len(counts), -np.inf)
    np.maximum.at(maxima, column, values)
    filled = np.flatnonzero(counts)
    middle: Floats = np.asarray((filled + 0.5) * width, dtype=np.float64)
    mean, peak = sums[filled] / counts[filled], maxima[filled]
    return Curve(label, middle, mean, peak, float(values.mean()), float(values.max()))
