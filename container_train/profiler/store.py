"""The profiler's files read back: system metrics, timeline, job. For the rules and for the report."""

import contextlib
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from container_train.profiler.timeline import COLUMNS, NAME

Floats = npt.NDArray[np.float64]
JOB = "job.json"
# What a row that somebody else wrote, or that the disk has spoilt, may raise; it is left out.
MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
# Dimensions of the service's own files, then ours. A row without a dimension of its own is known by its name.
CPU, IO_WAIT = "CPUUtilization", "I/OWaitPercentage"
GPU, GPU_MEMORY = "GPUUtilization", "GPUMemoryUtilization"
MEMORY = "MemoryUsedPercent"
READ, WRITTEN = "ReadThroughputInBytesPerSecond", "WriteThroughputInBytesPerSecond"
RECEIVED, SENT = "ReceiveBytesPerSecond", "TransmitBytesPerSecond"
CONTAINER_CPU = "ContainerCPUUtilization"  # % of the CPUs that the container may use
GPU_POWER, GPU_TEMPERATURE = "GPUPowerInWatts", "GPUTemperatureInCelsius"
NO_DIMENSIONS = ("", "Algorithm")

Key = tuple[str, str, str]  # dimension, node, name


@dataclass(frozen=True)
class Series:
    """One metric over time: `times` (N,) in seconds since 1970, ascending, and `values` (N,)."""

    times: Floats
    values: Floats


@dataclass(frozen=True)
class System:
    """The system metrics of a job, its devices in their natural order: cpu2 before cpu10."""

    metrics: Mapping[Key, Series]

    def nodes(self) -> list[str]:
        return sorted({node for _, node, _ in self.metrics})

    def series(self, dimension: str, node: str | None = None) -> dict[tuple[str, str], Series]:
        """(node, name) -> Series, of `node` or of all."""
        return {
            (where, name): series
            for (what, where, name), series in self.metrics.items()
            if what == dimension and node in (None, where)
        }


@dataclass(frozen=True)
class Phase:
    """`end` of a phase that is not over, or whose end was not written, is the last time that anything was."""

    name: str
    start: float
    end: float
    epoch: int | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Steps:
    """The steps that were written, (N,) each: number, epoch, start in seconds since 1970, durations in seconds.

    `weight`: how many steps each stands for, more than 1 in a long training.
    """

    number: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int64]
    start: Floats
    weight: Floats
    total: Floats
    data: Floats
    forward: Floats
    backward: Floats
    optimizer: Floats

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True)
class Timeline:
    phases: list[Phase]
    steps: Steps
    epochs: list[dict[str, Any]]


def system(out: Path) -> System:
    """The system metrics below `out`: ours, the service's, or those of the folder itself. [] where there are none."""
    roots = (out / "profiler", out / "profiler-output", out)
    root = next((root for root in roots if (root / "system").is_dir()), out)
    parts: dict[Key, list[Floats]] = defaultdict(list)
    for path in sorted((root / "system").glob("incremental/**/*.json"), key=lambda path: path.name):
        for key, points in _metrics(path, path.stat().st_mtime_ns, path.stat().st_size).items():
            parts[key].append(points)
    natural = sorted(parts, key=lambda key: (*key[:2], int("".join(filter(str.isdigit, key[2]))[:9] or 0), key[2]))
    return System({key: Series(*np.concatenate(parts[key], axis=1)) for key in natural})


@functools.cache  # a report is made again and again, of a file a minute
def _metrics(path: Path, _changed: int, _size: int) -> dict[Key, Floats]:
    """Times and values (2, N) of each metric of a file."""
    points: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    for row in _objects(path):
        with contextlib.suppress(*MALFORMED):
            dimension, name = str(row.get("Dimension") or ""), str(row.get("Name") or "")
            key = (name if dimension in NO_DIMENSIONS else dimension, str(row["NodeId"]), name)
            point = float(row["Timestamp"]), float(row["Value"])
            points[key].append(point)
    return {key: np.array(rows).T for key, rows in points.items()}


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; what is cut off or broken is left out."""
    text = path.read_bytes() if path.is_file() else b""
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    with contextlib.suppress(ValueError):  # all at once is faster
        yield from json.loads(b"[" + b",".join(lines) + b"]")
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def timeline(out: Path) -> Timeline:
    """The timeline as far as it is written."""
    phases: dict[tuple[str, float], Phase] = {}
    steps: list[Floats] = []  # rows in the order of Steps
    epochs: list[dict[str, Any]] = []
    last = 0.0

    def take(row: dict[str, Any]) -> None:
        nonlocal last
        kind = row.pop("kind", "")
        if kind in ("begin", "phase"):
            name, start, epoch = str(row["name"]), float(row["start"]), row.get("epoch")
            end = float(row["end"]) if kind == "phase" else start
            phases[name, start] = Phase(name, start, end, epoch, goes_on=kind == "begin")
            last = max(last, end)
        elif kind == "steps":
            columns = np.array([row[name] for name in COLUMNS], dtype=np.float64).reshape(len(COLUMNS), -1)
            total, every = columns[0], int(row.get("every", 1))
            ends = float(row["start"]) + every * np.cumsum(total)
            number = int(row["first"]) + every * np.arange(len(total))
            one = np.ones(len(total))
            steps.append(np.vstack([number, int(row["epoch"]) * one, ends - every * total, every * one, columns]))
            last = max(last, *ends[-1:].tolist())
        elif kind == "epoch":
            epochs.append(row)

    for row in _objects(out / "profiler" / NAME):
        with contextlib.suppress(*MALFORMED):
            take(row)
    found = [replace(phase, end=last) if phase.goes_on else phase for phase in phases.values()]
    number, epoch, *columns = np.concatenate(steps, axis=1) if steps else np.zeros((4 + len(COLUMNS), 0))
    return Timeline(
        sorted(found, key=lambda phase: (phase.start, -phase.end)),
        Steps(number.astype(np.int64), epoch.astype(np.int64), *columns),
        epochs,
    )


def job(out: Path) -> dict[str, Any]:
    """job.json, or {} where there is none."""
    return read_object(out / "profiler" / JOB)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no such file, or it holds something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
