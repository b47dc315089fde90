"""The kernel's counters of the machine: time of each core, disks, network interfaces, memory."""

import os
from pathlib import Path

import psutil

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
