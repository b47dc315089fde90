"""The container's own limits and counters, of cgroup v1 and v2: CPU time and memory."""

import os
from dataclasses import dataclass
from pathlib import Path

from container_serve.resources import CGROUPS, OWN_CGROUP, folders, memory_limit, quota


@dataclass(frozen=True)
class Limits:
    """Cores (affinity and quota, fractions too) and bytes of memory that the container may use."""

    cpus: float
    memory_bytes: int


def limits(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> Limits:
    cpus = float(len(os.sched_getaffinity(0)))
    return Limits(min([cpus, *(quota(folder) for folder in folders(cgroups, own, "cpu"))]), memory_limit(cgroups, own))


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
