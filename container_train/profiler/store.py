"""The profiler's files read back: system metrics, timeline, job. For the rules and for the report.

A reader is kept for each file tree, so that a second look reads only what was added since.
"""

import contextlib
import functools
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from container_train.profiler.timeline import COLUMNS, NAME

Floats = npt.NDArray[np.float64]
JOB = "job.json"
FIRST_PHASE = "data"  # of each run of a job
# What a row that somebody else wrote, or that the disk has spoilt, may raise; it is passed over.
MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
HEAD_BYTES = 256  # by which a file is known again: there is a time in them
# Dimensions of the service's own files, then ours. A row without a dimension is known by its name.
CPU, IO_WAIT = "CPUUtilization", "I/OWaitPercentage"
GPU, GPU_MEMORY = "GPUUtilization", "GPUMemoryUtilization"
NETWORK = "Algorithm"
MEMORY, IOPS = "MemoryUsedPercent", "IOPS"
READ, WRITTEN = "ReadThroughputInBytesPerSecond", "WriteThroughputInBytesPerSecond"
RECEIVED, SENT = "ReceiveBytesPerSecond", "TransmitBytesPerSecond"
CONTAINER_CPU = "ContainerCPUUtilization"  # % of the CPUs that the container may use
GPU_POWER, GPU_TEMPERATURE = "GPUPowerInWatts", "GPUTemperatureInCelsius"


@dataclass(frozen=True)
class Series:
    """One metric over time: `times` (N,) in seconds since 1970, ascending, and `values` (N,)."""

    times: Floats
    values: Floats


@dataclass(frozen=True)
class Phase:
    """`end` of a phase that goes on, or whose end was not written, is the last time that anything was."""

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


class Tail:
    """The lines that were added to a file since the last look; a line without its end waits."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.head = path, 0, b""

    def replaced(self) -> bool:
        """Whether this is another file by now (one in its place may have its very inode)."""
        try:
            with self.path.open("rb") as file:
                return file.read(len(self.head)) != self.head
        except FileNotFoundError:
            return self.offset > 0

    def lines(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                text = file.read()
        except FileNotFoundError:
            return []
        end = text.rfind(b"\n") + 1
        self.head = self.head or text[: min(end, HEAD_BYTES)]
        self.offset += end
        return text[:end].splitlines()


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(ValueError):  # all at once is faster
        yield from json.loads(b"[" + b",".join(lines) + b"]")
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # cut off by a full disk, say
            yield json.loads(line)


class System:
    """The system metrics below a folder: the job's output, or what the service's profiler wrote."""

    def __init__(self, out: Path) -> None:
        # Ours, the service's, or the folder itself.
        self.roots = (out / "profiler", out / "profiler-output", out)
        self.tails: dict[Path, Tail] = {}
        self.rows: dict[tuple[str, str, str], tuple[array[float], array[float]]] = {}

    def refresh(self) -> None:
        root = next((root for root in self.roots if (root / "system").is_dir()), None)
        if root is None:
            return
        for path in sorted((root / "system").glob("incremental/**/*.json"), key=lambda p: p.name):
            for row in _objects(self.tails.setdefault(path, Tail(path)).lines()):
                try:
                    key = (str(row["NodeId"]), str(row.get("Dimension") or ""), str(row.get("Name") or ""))
                    time, value = float(row["Timestamp"]), float(row["Value"])
                except MALFORMED:
                    continue
                if key not in self.rows:
                    self.rows[key] = array("d"), array("d")
                times, values = self.rows[key]
                times.append(time)
                values.append(value)

    def nodes(self) -> list[str]:
        return sorted({node for node, _, _ in self.rows})

    def series(self, what: str, node: str | None = None) -> dict[tuple[str, str], Series]:
        """(node, name) -> Series of the dimension `what`; of the name `what` where rows have no dimension."""
        found = {}
        for (row_node, dimension, name), (times, values) in sorted(self.rows.items(), key=lambda item: item[0]):
            if (dimension == what or (not dimension and name == what)) and node in (None, row_node):
                found[row_node, name] = Series(np.array(times), np.array(values))
        return found


@dataclass(frozen=True)
class _Block:
    """Steps `first`, `first + every`, ...; `columns` (5, N) seconds in the order of COLUMNS."""

    first: int
    every: int
    epoch: int
    start: float
    columns: Floats


class _TimelineReader:
    def __init__(self, out: Path) -> None:
        self.tail = Tail(out / "profiler" / NAME)
        self.phases: dict[tuple[str, float], Phase] = {}
        self.open: dict[tuple[str, float], int | None] = {}
        self.blocks: list[_Block] = []
        self.epochs: list[dict[str, Any]] = []
        self.last = 0.0

    def read(self) -> Timeline:
        for row in _objects(self.tail.lines()):
            with contextlib.suppress(*MALFORMED):
                self._take(row)
        going_on = [Phase(name, start, self.last, epoch, True) for (name, start), epoch in self.open.items()]
        phases = sorted([*self.phases.values(), *going_on], key=lambda phase: (phase.start, -phase.end))
        return Timeline(phases, self._steps(), list(self.epochs))

    def _take(self, row: dict[str, Any]) -> None:
        kind = row.pop("kind", "")
        if kind == "begin":
            name, start = str(row["name"]), float(row["start"])
            if name == FIRST_PHASE:
                # A job that was killed and taken up again: what was going on then ended with it.
                for (open_name, begun), epoch in self.open.items():
                    self.phases[open_name, begun] = Phase(open_name, begun, self.last, epoch)
                self.open.clear()
            self.open[name, start] = row.get("epoch")
            self.last = max(self.last, start)
        elif kind == "phase":
            phase = Phase(str(row["name"]), float(row["start"]), float(row["end"]), row.get("epoch"))
            self.open.pop((phase.name, phase.start), None)
            self.phases[phase.name, phase.start] = phase
            self.last = max(self.last, phase.end)
        elif kind == "steps":
            block = _Block(
                int(row["first"]), int(row.get("every", 1)), int(row["epoch"]), float(row["start"]),
                np.array([row[name] for name in COLUMNS], dtype=np.float64).reshape(len(COLUMNS), -1),
            )  # fmt: skip
            self.blocks.append(block)
            self.last = max(self.last, block.start + float(block.columns[0].sum()) * block.every)
        elif kind == "epoch":
            self.epochs.append(row)

    def _steps(self) -> Steps:
        lengths = [block.columns.shape[1] for block in self.blocks]
        numbers = [block.first + block.every * np.arange(n) for block, n in zip(self.blocks, lengths, strict=True)]
        totals = [block.columns[0] for block in self.blocks]
        starts = [
            block.start + block.every * (np.cumsum(total) - total)
            for block, total in zip(self.blocks, totals, strict=True)
        ]
        columns = [
            _joined([block.columns[index] for block in self.blocks], np.float64) for index in range(len(COLUMNS))
        ]
        return Steps(
            _joined(numbers, np.int64),
            np.repeat(np.array([block.epoch for block in self.blocks], np.int64), lengths),
            _joined(starts, np.float64),
            np.repeat(np.array([block.every for block in self.blocks], np.float64), lengths),
            *columns,
        )


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


_systems = functools.cache(System)
_timelines = functools.cache(_TimelineReader)


def system(out: Path) -> System:
    """The system metrics that are there now."""
    if any(tail.replaced() for tail in _systems(out).tails.values()):
        _systems.cache_clear()
    reader = _systems(out)
    reader.refresh()
    return reader


def timeline(out: Path) -> Timeline:
    """The timeline as far as it is written."""
    if _timelines(out).tail.replaced():
        _timelines.cache_clear()
    return _timelines(out).read()


def job(out: Path) -> dict[str, Any]:
    """job.json, or {} where there is none."""
    try:
        content: dict[str, Any] = json.loads((out / "profiler" / JOB).read_text())
    except (OSError, ValueError):
        return {}
    return content
