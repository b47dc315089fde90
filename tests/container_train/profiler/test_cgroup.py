"""Counters of made-up cgroup trees, laid out as the kernel's."""

import os
from pathlib import Path

import pytest

from container_train.profiler.cgroup import Cgroup, limits

MIB = 2**20


def tree(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "cgroup", root / "own"


V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "memory.current": f"{300 * MIB}\n",
    "memory.stat": f"anon 1\ninactive_file {100 * MIB}\nactive_file 5\n",
}


@pytest.mark.parametrize(("own", "folder"), [("0::/\n", ""), ("0::/kubepods/pod7\n", "kubepods/pod7/")])
def test_version_2(tmp_path: Path, own: str, folder: str) -> None:
    group = Cgroup(*tree(tmp_path, own, {folder + name: text for name, text in V2.items()}))
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
    group = Cgroup(*tree(tmp_path, own, files))
    assert group.cpu_seconds() == 1.5
    assert group.memory_bytes() == 30 * MIB


def test_the_root_group_of_version_1_is_the_machine_and_so_nobody_s_own(tmp_path: Path) -> None:
    own = "9:memory:/\n2:cpuacct:/\n"
    files = {"memory/memory.usage_in_bytes": "5\n", "cpuacct/cpuacct.usage": "5\n"}
    group = Cgroup(*tree(tmp_path, own, files))
    assert (group.cpu_seconds(), group.memory_bytes()) == (None, None)


def test_without_cgroups(tmp_path: Path) -> None:
    group = Cgroup(tmp_path / "none", tmp_path / "nothing")
    assert (group.cpu_seconds(), group.memory_bytes()) == (None, None)


def test_limits_keep_fractions_of_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    files = {"cpu.max": "250000 100000\n", "memory.max": f"{64 * MIB}\n"}
    found = limits(*tree(tmp_path, "0::/\n", files))
    assert (found.cpus, found.memory_bytes) == (2.5, 64 * MIB)
    assert limits().cpus <= 8
    assert limits().memory_bytes > 64 * MIB


def test_counters_are_read_anew_each_time(tmp_path: Path) -> None:
    cgroups, own = tree(tmp_path, "0::/\n", V2)
    group = Cgroup(cgroups, own)
    assert group.cpu_seconds() == 2.5
    (cgroups / "cpu.stat").write_text("usage_usec 3000000\n")
    assert group.cpu_seconds() == 3.0
