"""The sampler, a process beside the training: python -m container_train.profiler.sampler --folder OUT/profiler

Every `--interval` ms it notes what machine, container and GPUs do, in the format of the service's own system metrics,
of which smdebug's readers know the folders, the names of the files and the fields:
    system/incremental/2026112217/1795367040.algo-1.json
    {"Type":"cpu","Name":"cpu0","Dimension":"CPUUtilization","Value":4.76,"NodeId":"algo-1","Timestamp":1795367041.2}
Types, names and dimensions are those that the service writes (rows of a real job stand in the notebooks of many of its
users: memory/MemoryUsedPercent, i/o/IOPS, network/ReceiveBytesPerSecond/Algorithm ...), and three of our own:
ContainerCPUUtilization, GPUPowerInWatts, GPUTemperatureInCelsius.

It ends when its standard input does, or says `end`. No torch, no numpy: it has to start at once and weigh nothing.
"""

import argparse
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from container_train.profiler.cgroup import Cgroup, limits
from container_train.profiler.gpu import Gpus
from container_train.profiler.machine import Machine

INTERVALS = (100, 200, 500, 1000, 5000, 60_000)  # ms, as the service takes them
STATISTICS = "sampler.json"
WRITE_SECONDS = 2.0
FILE_SECONDS = 60
# Raw metrics of a long job on many cores: each time they have grown by so much, the interval grows one step.
BYTES_AN_INTERVAL = 256 * 2**20

Row = tuple[str, str, str, float]  # type, name, dimension, value


@dataclass
class Statistics:
    """How well the schedule was kept; errors are the lateness of the samples that were taken."""

    samples: int = 0
    missed: int = 0
    mean_error_ms: float = 0.0
    max_error_ms: float = 0.0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    interval_ms: int = 0
    gpus: list[str] | None = None
    problem: str = ""


class Sampler:
    """Turns counters into rows: rates over the time since the sample before."""

    def __init__(self, machine: Machine, cgroup: Cgroup, gpus: Gpus) -> None:
        self.machine, self.cgroup, self.gpus = machine, cgroup, gpus
        self.limits = limits()
        self.now = time.monotonic()
        self.cores = machine.core_times()
        self.cpu = cgroup.cpu_seconds()
        self.disk = self._disk()
        self.network = machine.network()

    def _disk(self) -> tuple[int, int, int] | None:
        own = self.cgroup.disk()
        return own if own is not None else self.machine.disk()

    def rows(self) -> list[Row]:
        now = time.monotonic()
        seconds, self.now = max(now - self.now, 1e-6), now
        return [*self._cpu(seconds), *self._memory(), *self._io(seconds), *self._gpu()]

    def _cpu(self, seconds: float) -> Iterable[Row]:
        cores, before = self.machine.core_times(), self.cores
        self.cores = cores
        for name, (busy, waited, total) in cores.items():
            busy_before, waited_before, total_before = before.get(name, (busy, waited, total))
            ticks = max(total - total_before, 1)
            yield "cpu", name, "CPUUtilization", _percent(busy - busy_before, ticks)
            yield "cpu", name, "I/OWaitPercentage", _percent(waited - waited_before, ticks)
        cpu, cpu_before = self.cgroup.cpu_seconds(), self.cpu
        self.cpu = cpu
        if cpu is not None and cpu_before is not None:
            yield "cpu", "container", "ContainerCPUUtilization", _percent(cpu - cpu_before, seconds * self.limits.cpus)

    def _memory(self) -> Iterable[Row]:
        own = self.cgroup.memory_bytes()
        used = own if own is not None else self.machine.memory_bytes()
        if used is not None:
            yield "memory", "MemoryUsedPercent", "", _percent(used, self.limits.memory_bytes)

    def _io(self, seconds: float) -> Iterable[Row]:
        disk, before = self._disk(), self.disk
        self.disk = disk
        if disk is not None and before is not None:
            read, written, operations = (max(0, new - old) / seconds for new, old in zip(disk, before, strict=True))
            yield "i/o", "IOPS", "", operations
            yield "i/o", "ReadThroughputInBytesPerSecond", "", read
            yield "i/o", "WriteThroughputInBytesPerSecond", "", written
        network, earlier = self.machine.network(), self.network
        self.network = network
        if network is not None and earlier is not None:
            received, sent = (max(0, new - old) / seconds for new, old in zip(network, earlier, strict=True))
            yield "network", "ReceiveBytesPerSecond", "Algorithm", received
            yield "network", "TransmitBytesPerSecond", "Algorithm", sent

    def _gpu(self) -> Iterable[Row]:
        for index, gpu in enumerate(self.gpus.read()):
            for dimension, value in (
                ("GPUUtilization", gpu.utilization),
                ("GPUMemoryUtilization", gpu.memory),
                ("GPUPowerInWatts", gpu.watts),
                ("GPUTemperatureInCelsius", gpu.celsius),
            ):
                if value is not None:
                    yield "gpu", f"gpu{index}", dimension, value


def _percent(part: float, whole: float) -> float:
    # The kernel's counters of idle and waiting time may step back a little.
    return min(100.0, max(0.0, 100 * part / whole))


class Files:
    """A file a minute, named by the minute's first second, in a folder an hour (UTC)."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder, self.node = folder / "system" / "incremental", node
        self.heads: dict[tuple[str, str, str], str] = {}
        self.lines: list[str] = []
        self.minute, self.file, self.bytes = -1, -1, 0

    def add(self, rows: Iterable[Row], now: float) -> None:
        """Keep the rows of one sample, taken at `now`, seconds since 1970."""
        minute = int(now) // FILE_SECONDS * FILE_SECONDS
        if minute != self.minute:
            self.write()
            self._open(minute)
        tail = f',"NodeId":"{self.node}","Timestamp":{now:.6f}}}\n'
        for kind, name, dimension, value in rows:
            head = self.heads.get((kind, name, dimension))
            if head is None:
                words = json.dumps({"Type": kind, "Name": name, "Dimension": dimension}, separators=(",", ":"))
                head = self.heads[kind, name, dimension] = words[:-1] + ',"Value":'
            self.lines.append(f"{head}{value:.2f}{tail}")

    def _open(self, minute: int) -> None:
        folder = self.folder / time.strftime("%Y%m%d%H", time.gmtime(minute))
        folder.mkdir(parents=True, exist_ok=True)
        if self.file >= 0:
            os.close(self.file)
        path = folder / f"{minute}.{self.node}.json"
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.minute = minute

    def write(self) -> None:
        if self.lines:
            # Whole lines: a reader may look at any time.
            self.bytes += os.write(self.file, "".join(self.lines).encode())
            self.lines = []


def run(folder: Path, interval_ms: int, node: str, stdin: int, sampler: Sampler) -> Statistics:
    """Sample until `stdin` is readable. The schedule is absolute, on the monotonic clock: errors do not add up."""
    files, statistics = Files(folder, node), Statistics(interval_ms=interval_ms, gpus=sampler.gpus.names)
    statistics.problem = sampler.gpus.error
    start = written = time.monotonic()
    interval, origin, number, errors, limit = interval_ms / 1000, start, 1, 0.0, BYTES_AN_INTERVAL

    def save() -> None:
        files.write()
        statistics.mean_error_ms = round(1000 * errors / max(statistics.samples, 1), 3)
        statistics.cpu_seconds = round(time.process_time(), 3)
        statistics.seconds = round(time.monotonic() - start, 3)
        temporary = folder / f".{STATISTICS}.tmp"
        temporary.write_text(json.dumps(asdict(statistics)))
        temporary.replace(folder / STATISTICS)

    while not _ended(stdin, origin + number * interval):
        now = time.monotonic()
        skipped = math.floor((now - origin) / interval) - number
        statistics.missed += skipped
        number += skipped
        error = now - origin - number * interval
        files.add(sampler.rows(), time.time())
        number += 1
        errors += error
        statistics.samples += 1
        statistics.max_error_ms = max(statistics.max_error_ms, round(1000 * error, 3))
        if now - written >= WRITE_SECONDS:
            written = now
            save()
            longer = [ms for ms in INTERVALS if ms > statistics.interval_ms]
            if files.bytes > limit and longer:
                limit += BYTES_AN_INTERVAL
                statistics.interval_ms = longer[0]
                interval, origin, number = longer[0] / 1000, now, 1
    save()
    return statistics


def _ended(stdin: int, until: float) -> bool:
    """Wait until that time on the monotonic clock; True as soon as there is something, or the end, on `stdin`."""
    return bool(select.select([stdin], [], [], max(0.0, until - time.monotonic()))[0])


def main(arguments: list[str]) -> int:
    # The training program handles these, and then ends this process; a stop is part of what is to be seen.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--interval", type=int, choices=INTERVALS, default=500, help="milliseconds")
    parser.add_argument("--node", default="algo-1", help="as smdebug's readers want it: algo- and a number")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        sampler = Sampler(Machine(), Cgroup(), Gpus())
        run(options.folder, options.interval, options.node, sys.stdin.fileno(), sampler)
    except OSError as error:
        print(f"sampler: {error.filename or options.folder}: {error.strerror}: no more samples", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
