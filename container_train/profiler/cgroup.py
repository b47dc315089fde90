"""What the container itself uses, of cgroup v1 and v2: CPU time, memory, disk."""

import os
from dataclasses import dataclass
from pathlib import Path

from container_serve.resources import CGROUPS, OWN_CGROUP, folders, memory_limit, quota

READ_BYTES = 65_536


class Counter:
    """A kernel's text file, opened once and read from its start each time."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        return os.pread(self.file, READ_BYTES, 0)


def counter(path: Path | None) -> Counter | None:
    """A counter of a file that is there and can be read, otherwise None."""
    try:
        found = Counter(path) if path is not None else None
        if found is not None:
            found.read()
        return found
    except OSError:
        return None


@dataclass(frozen=True)
class Limits:
    """What the container may use: cores (affinity and quota, fractions too) and bytes of memory."""

    cpus: float
    memory_bytes: int


def limits(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> Limits:
    cpus = float(len(os.sched_getaffinity(0)))
    return Limits(min([cpus, *(quota(folder) for folder in folders(cgroups, own, "cpu"))]), memory_limit(cgroups, own))


class Cgroup:
    """The counters of the own group. What it does not count, or what would be the whole machine's, is None.

    Version 2 counts no CPU time per core; version 1 does, but the machine's own counters say as much for a container
    that has its cores to itself, so that cores are read there in both cases. Version 1 does not count
    what a group writes through the file cache (a synced file of 200 MB was 0 bytes there; version 2 knows whose it is,
    https://docs.kernel.org/admin-guide/cgroup-v2.html#writeback): with it, disks are the machine's.
    """

    def __init__(self, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> None:
        self.cpu_v2 = counter(_file("cpu.stat", "cpu", cgroups, own))
        self.cpu_v1 = counter(_file("cpuacct.usage", "cpuacct", cgroups, own))
        self.memory = counter(
            _file("memory.current", "memory", cgroups, own) or _file("memory.usage_in_bytes", "memory", cgroups, own)
        )
        self.memory_stat = counter(_file("memory.stat", "memory", cgroups, own))
        self.io = counter(_file("io.stat", "io", cgroups, own))

    def cpu_seconds(self) -> float | None:
        """CPU time used so far by all processes of the container."""
        if self.cpu_v1 is not None:
            return int(self.cpu_v1.read()) / 1e9
        if self.cpu_v2 is not None:
            for line in self.cpu_v2.read().splitlines():
                if line.startswith(b"usage_usec "):
                    return int(line[11:]) / 1e6
        return None

    def memory_bytes(self) -> int | None:
        """Memory in use, without the file cache that the kernel would give up first."""
        if self.memory is None:
            return None
        used = int(self.memory.read())
        inactive = (b"total_inactive_file ", b"inactive_file ")
        lines = self.memory_stat.read().splitlines() if self.memory_stat is not None else []
        found = {name: int(line[len(name) :]) for line in lines for name in inactive if line.startswith(name)}
        return max(0, used - next((found[name] for name in inactive if name in found), 0))

    def disk(self) -> tuple[int, int, int] | None:
        """Bytes read, bytes written and operations so far, over all devices."""
        if self.io is None:
            return None
        sums = dict.fromkeys((b"rbytes", b"wbytes", b"rios", b"wios"), 0)
        for word in self.io.read().split():
            name, _, value = word.partition(b"=")
            if name in sums:
                sums[name] += int(value)
        return sums[b"rbytes"], sums[b"wbytes"], sums[b"rios"] + sums[b"wios"]


def _file(name: str, controller: str, cgroups: Path, own: Path) -> Path | None:
    """The file of the innermost group that is mounted here; none of version 1's root group, which is the machine."""
    whole = {
        controller
        for line in _text(own).splitlines()
        for _, controllers, path in [line.split(":", 2)]
        for controller in controllers.split(",")
        if controllers and path == "/"
    }
    if controller in whole:
        return None
    return next((folder / name for folder in folders(cgroups, own, controller) if (folder / name).is_file()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
