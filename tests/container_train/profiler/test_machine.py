"""The kernel's counters, of made-up trees that are laid out as its own."""

import os
from pathlib import Path

import psutil
import pytest

from container_train.profiler import machine
from container_train.profiler.machine import Cgroup, limits
from tests.trees import cgroup

MIB = 2**20

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


V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "memory.current": f"{300 * MIB}\n",
    "memory.stat": f"anon 1\ninactive_file {100 * MIB}\nactive_file 5\n",
}


@pytest.mark.parametrize(("own", "folder"), [("0::/\n", ""), ("0::/kubepods/pod7\n", "kubepods/pod7/")])
def test_version_2(tmp_path: Path, own: str, folder: str) -> None:
    group = Cgroup(*cgroup(tmp_path, own, {folder + name: text for name, text in V2.items()}))
    assert group.cpu_seconds() == 2.5
    assert group.memory_bytes() == 200 * MIB


def test_version_1_in_a_container_whose_own_path_is_the_hosts(tmp_path: Path) -> None:
    own = "12:cpu,cpuacct:/docker/x\n9:memory:/docker/x\n0::/\n"
    files = {
        "cpu,cpuacct/cpuacct.usage": "1500000000\n",
        "cpu,cpuacct/cpu.stat": "nr_periods 0\n",
        "memory/memory.usage_in_bytes": f"{50 * MIB}\n",
        "memory/memory.stat": f"cache 7\ntotal_inactive_file {20 * MIB}\n",
    }
    group = Cgroup(*cgroup(tmp_path, own, files))
    assert group.cpu_seconds() == 1.5
    assert group.memory_bytes() == 30 * MIB


def test_the_root_group_of_version_1_is_the_machine_and_so_nobody_s_own(tmp_path: Path) -> None:
    own = "9:memory:/\n2:cpuacct:/\n"
    files = {"memory/memory.usage_in_bytes": "5\n", "cpuacct/cpuacct.usage": "5\n"}
    group = Cgroup(*cgroup(tmp_path, own, files))
    assert (group.cpu_seconds(), group.memory_bytes()) == (None, None)


def test_without_cgroups(tmp_path: Path) -> None:
    group = Cgroup(tmp_path / "none", tmp_path / "nothing")
    assert (group.cpu_seconds(), group.memory_bytes()) == (None, None)


def test_limits_keep_fractions_of_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    files = {"cpu.max": "250000 100000\n", "memory.max": f"{64 * MIB}\n"}
    found = limits(*cgroup(tmp_path, "0::/\n", files))
    assert found == (2.5, 64 * MIB)
    cpus, memory = limits()
    assert (cpus <= 8, memory > 64 * MIB) == (True, True)
