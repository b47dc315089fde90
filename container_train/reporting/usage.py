"""How busy the machine was over time, thinned to what a chart can show."""

from dataclasses import dataclass

import numpy as np

from container_train.profiler import store
from container_train.profiler.store import Floats, Series, System
from container_train.reporting.clock import Clock

COLUMNS = 600  # points of a curve: more than that no screen shows
MEGABYTE = 1e6


@dataclass(frozen=True)
class Curve:
    """`x` seconds on the job's clock; `mean` and `maximum` of what was measured around them; NaN where nothing was."""

    label: str
    x: Floats
    mean: Floats
    maximum: Floats
    average: float
    peak: float


@dataclass(frozen=True)
class Usage:
    """Curves in % (cpu, memory, gpu, gpu_memory), MB/s (disk, network), W and degrees Celsius."""

    cpu: list[Curve]
    cores: list[Curve]
    gpu: list[Curve]
    memory: list[Curve]
    disk: list[Curve]
    network: list[Curve]
    power: list[Curve]
    temperature: list[Curve]

    def __bool__(self) -> bool:
        return any(vars(self).values())


def select(system: System, what: str) -> dict[tuple[str, str], Series]:
    """(node, name) -> series of what the service calls `what`, be it as the dimension or as the name."""
    return {
        (node, name): Series(np.array(times), np.array(values))
        for (node, dimension, name), (times, values) in sorted(system.rows.items(), key=lambda item: _natural(item[0]))
        if what in (dimension, name)
    }


def measure(system: System, clock: Clock) -> Usage:
    """All of it, on the job's clock."""
    several = len(system.nodes()) > 1

    def curves(what: str, label: str, scale: float = 1.0) -> list[Curve]:
        """One for each device; `{}` in the label is its name."""
        return [
            curve
            for (node, name), series in select(system, what).items()
            if (curve := thin(_label(label, name, node if several else ""), series, clock, scale)) is not None
        ]

    cores = select(system, store.CPU)
    per_core = [
        curve
        for (node, name), series in cores.items()
        if (curve := thin(_label("{}", name, node if several else ""), series, clock)) is not None
    ]
    cpu = curves(store.CONTAINER_CPU, "the container, of what it may use") + _together(
        cores, f"all {len(cores)} cores of the machine", clock, several
    )
    waits = _together(select(system, store.IO_WAIT), "waiting for the disk", clock, several)
    return Usage(
        cpu=cpu + waits,
        cores=per_core,
        gpu=curves(store.GPU, "{}"),
        memory=curves(store.MEMORY, "main memory") + curves(store.GPU_MEMORY, "{} memory"),
        disk=curves(store.READ, "read", 1 / MEGABYTE) + curves(store.WRITTEN, "written", 1 / MEGABYTE),
        network=curves(store.RECEIVED, "received", 1 / MEGABYTE) + curves(store.SENT, "sent", 1 / MEGABYTE),
        power=curves(store.GPU_POWER, "{}"),
        temperature=curves(store.GPU_TEMPERATURE, "{}"),
    )


def thin(label: str, series: Series, clock: Clock, scale: float = 1.0) -> Curve | None:
    """Mean and maximum in at most COLUMNS equal parts of the job's time; None of a series without numbers."""
    good = np.isfinite(series.times) & np.isfinite(series.values)
    times, values = series.times[good], series.values[good] * scale
    if not len(times):
        return None
    x = clock(times)
    interval = float(np.median(np.diff(np.sort(x)))) if len(x) > 1 else 1.0
    width = max(clock.length / COLUMNS, interval, 1e-3)
    column = (x / width).astype(np.int64)
    size = int(column.max()) + 1
    counts = np.bincount(column, minlength=size)
    sums = np.bincount(column, weights=values, minlength=size)
    maxima = np.full(size, -np.inf)
    np.maximum.at(maxima, column, values)
    filled = np.flatnonzero(counts)
    middle, mean, maximum = (filled + 0.5) * width, sums[filled] / counts[filled], maxima[filled]
    # A line over a time in which nothing was measured would say what nobody knows.
    holes = np.flatnonzero(np.diff(middle) > 5 * width) + 1
    return Curve(
        label, np.insert(middle, holes, middle[holes] - width), np.insert(mean, holes, np.nan),
        np.insert(maximum, holes, np.nan), float(values.mean()), float(values.max()),
    )  # fmt: skip


def _together(cores: dict[tuple[str, str], Series], label: str, clock: Clock, several: bool) -> list[Curve]:
    """The mean over the cores of each node; their samples were taken at the same moments."""
    result = []
    for node in sorted({node for node, _ in cores}):
        own = [series for (of, _), series in cores.items() if of == node]
        short = min(len(series.times) for series in own)
        mean = np.mean([series.values[:short] for series in own], axis=0)
        curve = thin(_label(label, "", node if several else ""), Series(own[0].times[:short], mean), clock)
        result += [curve] if curve else []
    return result


def _label(label: str, name: str, node: str) -> str:
    device = name.replace("gpu", "GPU ").replace("cpu", "core ")
    return " ".join(filter(None, (node, label.replace("{}", device))))


def _natural(key: tuple[str, str, str]) -> tuple[str, str, int, str]:
    """cpu2 before cpu10."""
    node, dimension, name = key
    digits = "".join(filter(str.isdigit, name))
    return node, dimension, int(digits[:9] or 0), name
