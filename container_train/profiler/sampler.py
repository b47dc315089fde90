"""The sampler, a process beside the training: python -m container_train.profiler.sampler OUT/profiler INTERVAL NODE

Every INTERVAL ms it notes what machine, container and GPUs do, in the format of the service's own system metrics,
of which smdebug's readers know the folders, the names of the files and the fields:
    system/incremental/2026112217/1795367040.algo-1.json
    {"Type":"cpu","Name":"cpu0","Dimension":"CPUUtilization","Value":4.76,"NodeId":"algo-1","Timestamp":1795367041.2}
Types, names and dimensions are those that the service writes (rows of a real job stand in the notebooks of many of its
users: memory/MemoryUsedPercent, i/o/IOPS, network/ReceiveBytesPerSecond/Algorithm ...), and three of our own:
ContainerCPUUtilization, GPUPowerInWatts, GPUTemperatureInCelsius.

It ends when its standard input does, or says `end`. No torch, no numpy: it has to start at once and weigh nothing.
"""

import json
import math
import select
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from container_train.profiler import machine
from container_train.profiler.gpu import Gpus

INTERVALS = (100, 200, 500, 1000, 5000, 60_000)  # ms, as the service takes them
FILE_SECONDS = 60
# Raw metrics of a long job on many cores: each time they have grown by so much, the interval grows one step.
BYTES_AN_INTERVAL = 256 * 2**20

Row = tuple[str, str, str, float]  # type, name, dimension, value


class Sampler:
    """Turns counters into rows: rates over the time since the sample before."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        self.cgroup, self.gpus, (self.cpus, self.memory) = machine.Cgroup(), gpus or Gpus(), machine.limits()
        self._read()

    def _read(self) -> None:
        self.now, self.cores, self.cpu = time.monotonic(), machine.core_times(), self.cgroup.cpu_seconds()
        # Disks are the machine's: version 1 of cgroups does not count what is written through the file cache.
        self.io = (*machine.disk(), *machine.network())

    def rows(self) -> list[Row]:
        then, cores, cpu, io = self.now, self.cores, self.cpu, self.io
        self._read()
        seconds = max(self.now - then, 1e-6)
        rows: list[Row] = []
        for name, (busy, waited, total) in self.cores.items():
            busy_before, waited_before, total_before = cores.get(name, (busy, waited, total))
            ticks = max(total - total_before, 1e-3)
            rows.append(("cpu", name, "CPUUtilization", _percent(busy - busy_before, ticks)))
            rows.append(("cpu", name, "I/OWaitPercentage", _percent(waited - waited_before, ticks)))
        if self.cpu is not None and cpu is not None:
            used = _percent(self.cpu - cpu, seconds * self.cpus)
            rows.append(("cpu", "container", "ContainerCPUUtilization", used))
        own = self.cgroup.memory_bytes()
        memory = machine.memory_bytes() if own is None else own
        rows.append(("memory", "MemoryUsedPercent", "", _percent(memory, self.memory)))
        read, written, operations, received, sent = (
            max(0, new - old) / seconds for new, old in zip(self.io, io, strict=True)
        )
        rows += [
            ("i/o", "IOPS", "", operations),
            ("i/o", "ReadThroughputInBytesPerSecond", "", read),
            ("i/o", "WriteThroughputInBytesPerSecond", "", written),
            ("network", "ReceiveBytesPerSecond", "Algorithm", received),
            ("network", "TransmitBytesPerSecond", "Algorithm", sent),
        ]
        return rows + [("gpu", f"gpu{index}", dimension, value) for index, dimension, value in self.gpus.read()]


def _percent(part: float, whole: float) -> float:
    # The kernel's counters of idle and waiting time may step back a little.
    return min(100.0, max(0.0, 100 * part / whole))


def write(folder: Path, node: str, rows: Iterable[Row], now: float) -> int:
    """Add the rows of one sample, taken at `now` in seconds since 1970, to the file of its minute; returns their bytes.

    The file is named by the minute's first second, in a folder per hour (UTC).
    """
    minute = int(now) // FILE_SECONDS * FILE_SECONDS
    path = folder / "system" / "incremental" / time.strftime("%Y%m%d%H", time.gmtime(minute)) / f"{minute}.{node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {"Type": kind, "Name": name, "Dimension": dimension, "Value": round(value, 2), "NodeId": node,
             "Timestamp": round(now, 6)}, separators=(",", ":"),
        )
        for kind, name, dimension, value in rows
    ]  # fmt: skip
    with path.open("ab", buffering=0) as file:
        # Whole lines in one write: a reader may look at any time.
        return file.write("".join(f"{line}\n" for line in lines).encode())


def run(folder: Path, interval_ms: int, node: str, stdin: int, sampler: Sampler) -> int:
    """Sample until `stdin` is readable; return the interval that was reached.

    The schedule is absolute, on the monotonic clock: errors do not add up.
    """
    origin, number, size, limit = time.monotonic(), 1, 0, BYTES_AN_INTERVAL
    while not _ended(stdin, origin + number * interval_ms / 1000):
        now = time.monotonic()
        number = 1 + math.floor((now - origin) / (interval_ms / 1000))
        rows, taken = sampler.rows(), time.time()
        size += write(folder, node, rows, taken)
        longer = [ms for ms in INTERVALS if ms > interval_ms]
        if size > limit and longer:
            limit += BYTES_AN_INTERVAL
            interval_ms, origin, number = longer[0], now, 1
    return interval_ms


def _ended(stdin: int, until: float) -> bool:
    """Wait until that time on the monotonic clock; True as soon as there is something, or the end, on `stdin`."""
    return bool(select.select([stdin], [], [], max(0.0, until - time.monotonic()))[0])


def main(folder: str, interval_ms: str, node: str) -> int:
    # The training program handles these, and then ends this process; a stop is part of what is to be seen.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        sampler = Sampler()
        if sampler.gpus.error:
            print(f"sampler: {sampler.gpus.error}", file=sys.stderr, flush=True)
        run(Path(folder), int(interval_ms), node, sys.stdin.fileno(), sampler)
    except OSError as error:
        print(f"sampler: {error.filename or folder}: {error.strerror}: no more samples", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
