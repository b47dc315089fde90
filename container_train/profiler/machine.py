"""The kernel's counters of the machine (cores, disks, network interfaces, memory) and of the container's own cgroup."""

import os
from pathlib import Path

import psutil

from container_serve.resources import CGROUPS, OWN_CGROUP, folders, memory_limit, quota

# Bridges and their ends carry what the interface behind them carries again; `lo` carries nothing to anywhere.
VIRTUAL_INTERFACES = ("lo", "docker", "veth", "br-", "ifb", "virbr", "cni", "flannel")
VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
BLOCKS = Path("/sys/block")  # whole disks; partitions lie below them


def core_times() -> dict[str, tuple[float, float, float]]:
    """Of each core that this process may use the seconds so far that it was busy, waited for a disk, and all."""
    cores = psutil.cpu_times(percpu=True)
    times = {}
    for core in sorted(os.sched_getaffinity(0)):
        ticks = cores[core]
        total = sum(ticks[:8])  # guest time is in user already
        times[f"cpu{core}"] = (total - ticks.idle - ticks.iowait, ticks.iowait, total)
    return times


def disk(blocks: Path = BLOCKS) -> tuple[int, int, int]:
    """Bytes read, bytes written and operations so far, over all disks."""
    disks = [
        counters
        for name, counters in (psutil.disk_io_counters(perdisk=True, nowrap=False) or {}).items()
        if not name.startswith(VIRTUAL_DISKS) and (blocks / name).exists()
    ]
    return (
        sum(counters.read_bytes for counters in disks),
        sum(counters.write_bytes for counters in disks),
        sum(counters.read_count + counters.write_count for counters in disks),
    )


def network() -> tuple[int, int]:
    """Bytes received and sent so far; in a container these are the container's own interfaces."""
    interfaces = [
        counters
        for name, counters in psutil.net_io_counters(pernic=True, nowrap=False).items()
        if not name.startswith(VIRTUAL_INTERFACES)
    ]
    return sum(each.bytes_recv for each in interfaces), sum(each.bytes_sent for each in interfaces)


def memory_bytes() -> int:
    """Memory in use, without what the kernel could give up."""
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def limits(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> tuple[float, int]:
    """Return cores (affinity and quota, fractions too) and bytes of memory that the container may use."""
    cpus = float(len(os.sched_getaffinity(0)))
    return min([cpus, *(quota(folder) for folder in folders(cgroups, own, "cpu"))]), memory_limit(cgroups, own)


class Cgroup:
    """The counters of the own group; None where there are none, or they would be the whole machine's."""

    def __init__(self, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> None:
        self.cpu = _file(cgroups, own, "cpuacct", "cpuacct.usage") or _file(cgroups, own, "cpu", "cpu.stat")
        self.memory = _file(cgroups, own, "memory", "memory.current", "memory.usage_in_bytes")

    def cpu_seconds(self) -> float | None:
        """CPU time used so far by all processes of the container."""
        if self.cpu is None:
            return None
        text = self.cpu.read_text()
        return int(text) / 1e9 if self.cpu.name == "cpuacct.usage" else int(_table(text)["usage_usec"]) / 1e6

    def memory_bytes(self) -> int | None:
        """Memory in use, without the file cache that the kernel would give up first."""
        if self.memory is None:
            return None
        stat = _table(self.memory.with_name("memory.stat").read_text())
        return max(0, int(self.memory.read_text()) - int(stat.get("total_inactive_file", stat.get("inactive_file", 0))))


def _table(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines())


def _file(cgroups: Path, own: Path, controller: str, *names: str) -> Path | None:
    """The file of the innermost group that is mounted here; none of version 1's root group, which is the machine."""
    lines = own.read_text().splitlines() if own.is_file() else []
    if any(controller in (words := line.split(":", 2))[1].split(",") and words[2] == "/" for line in lines):
        return None
    candidates = (folder / name for folder in folders(cgroups, own, controller) for name in names)
    return next((path for path in candidates if path.is_file()), None)
