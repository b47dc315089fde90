"""What the kernel counts for the machine: time of each core, disks, network interfaces, memory."""

import os
from collections.abc import Iterable
from pathlib import Path

from container_train.profiler.cgroup import counter

PROC = Path("/proc")
# Bridges and their ends carry what the interface behind them carries again; `lo` carries nothing to anywhere.
VIRTUAL_INTERFACES = (b"lo", b"docker", b"veth", b"br-", b"ifb", b"virbr", b"cni", b"flannel")
VIRTUAL_DISKS = (b"loop", b"ram", b"zram", b"dm-", b"md", b"sr", b"fd")
SECTOR = 512  # bytes, in /proc/diskstats whatever the disk


class Machine:
    """Counters of `cores`, the cores that this process may run on, and of all disks and interfaces."""

    def __init__(self, proc: Path = PROC, cores: Iterable[int] | None = None) -> None:
        self.cores = sorted(os.sched_getaffinity(0) if cores is None else cores)
        self.names = {f"cpu{core}".encode(): f"cpu{core}" for core in self.cores}
        self.stat = counter(proc / "stat")
        self.diskstats = counter(proc / "diskstats")
        self.interfaces = counter(proc / "net" / "dev")
        self.meminfo = counter(proc / "meminfo")

    def core_times(self) -> dict[str, tuple[int, int, int]]:
        """Of each core the ticks so far that it was busy, that it waited for a disk, and all of them."""
        times = {}
        for line in self.stat.read().splitlines() if self.stat is not None else []:
            if not line.startswith(b"cpu"):
                break
            name, *words = line.split()
            if name in self.names:
                # user nice system idle iowait irq softirq steal; guest time is in user already
                ticks = [int(word) for word in words[:8]]
                total = sum(ticks)
                times[self.names[name]] = (total - ticks[3] - ticks[4], ticks[4], total)
        return times

    def disk(self) -> tuple[int, int, int] | None:
        """Bytes read, bytes written and operations so far, over all disks (partitions are parts of these)."""
        if self.diskstats is None:
            return None
        rows = [line.split() for line in self.diskstats.read().splitlines()]
        disks: list[bytes] = []
        read = written = operations = 0
        for row in rows:
            name = row[2]
            if name.startswith(VIRTUAL_DISKS) or any(_is_partition(name, disk) for disk in disks):
                continue
            disks.append(name)
            read += int(row[5])
            written += int(row[9])
            operations += int(row[3]) + int(row[7])
        return read * SECTOR, written * SECTOR, operations

    def network(self) -> tuple[int, int] | None:
        """Bytes received and sent so far; in a container these are the container's own interfaces."""
        if self.interfaces is None:
            return None
        received = sent = 0
        for line in self.interfaces.read().splitlines()[2:]:
            name, _, rest = line.strip().partition(b":")
            words = rest.split()
            if len(words) > 8 and not name.startswith(VIRTUAL_INTERFACES):
                received += int(words[0])
                sent += int(words[8])
        return received, sent

    def memory_bytes(self) -> int | None:
        """Memory in use, without what the kernel could give up."""
        lines = self.meminfo.read().splitlines() if self.meminfo is not None else []
        kib = {words[0]: int(words[1]) for words in (line.split() for line in lines) if len(words) > 1}
        if b"MemTotal:" not in kib or b"MemAvailable:" not in kib:
            return None
        return 1024 * (kib[b"MemTotal:"] - kib[b"MemAvailable:"])


def _is_partition(name: bytes, disk: bytes) -> bool:
    """Whether `name` is `disk` and a number: sda1 of sda, nvme0n1p1 of nvme0n1."""
    rest = name.removeprefix(disk)
    if rest == name:
        return False
    return rest.removeprefix(b"p").isdigit() if disk[-1:].isdigit() else rest.isdigit()
