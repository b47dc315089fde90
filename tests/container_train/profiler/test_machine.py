import os
from pathlib import Path

import psutil
import pytest

from container_train.profiler import machine

STAT = """cpu  200 0 100 1000 50 0 10 5 0 0
cpu0 100 0 50 500 40 0 10 0 0 0
cpu1 90 10 40 480 10 0 0 5 7 0
cpu2 10 0 10 20 0 0 0 0 0 0
intr 123 4 5
"""
DISKS = """   7       0 loop0 9 9 9 9 9 9 9 9 9 9 9
 259       0 nvme0n1 10 0 100 1 20 0 200 1 0 1 1 0 0 0 0
 259       1 nvme0n1p1 4 0 40 1 8 0 80 1 0 1 1
 259       2 nvme1n1 1 0 1 1 2 0 2 1 0 1 1
   8       0 sda 5 0 10 1 5 0 20 1 0 1 1
   8       1 sda1 5 0 10 1 5 0 20 1 0 1 1
 253       0 dm-0 5 0 10 1 5 0 20 1 0 1 1
"""
NETWORK = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 999 8 0 0 0 0 0 0 999 8 0 0 0 0 0 0
  eth0: 100 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0
  eth1:1000 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0
docker0: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
veth05f: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
"""  # noqa: E501

MEMORY = """MemTotal: 1000 kB
MemFree: 1 kB
MemAvailable: 400 kB
Buffers: 1 kB
Cached: 1 kB
Active: 1 kB
Inactive: 1 kB
Shmem: 1 kB
"""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "diskstats").write_text(DISKS)
    (tmp_path / "net" / "dev").write_text(NETWORK)
    (tmp_path / "meminfo").write_text(MEMORY)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    return tmp_path


def test_counters(proc: Path) -> None:
    # busy, waiting for a disk, all, in seconds; cpu2 is not among the cores that the process may use
    ticks = os.sysconf("SC_CLK_TCK")
    times = {core: tuple(round(each * ticks) for each in seconds) for core, seconds in machine.core_times().items()}
    assert times == {"cpu0": (160, 40, 700), "cpu1": (145, 10, 635)}
    blocks = proc / "block"
    for disk in ("loop0", "nvme0n1", "nvme1n1", "sda", "dm-0"):
        (blocks / disk).mkdir(parents=True)
    assert machine.disk(blocks) == (512 * 111, 512 * 222, 10 + 20 + 1 + 2 + 5 + 5)
    assert machine.network() == (1100, 40)
    assert machine.memory_bytes() == 600 * 1024


def test_this_machine() -> None:
    times = machine.core_times()
    assert len(times) == len(os.sched_getaffinity(0))
    assert all(0 <= busy <= total for busy, _, total in times.values())
    assert machine.memory_bytes() > 1e6
