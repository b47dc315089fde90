import os
from pathlib import Path

import pytest

from container_serve import resources
from container_serve.resources import Share, cpu_count, memory_limit, plan
from tests.trees import cgroup

MIB = 2**20


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and 16 GiB, whatever this one has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 4 * MIB)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/host/path/that/is/not/mounted\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "5:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            "5:cpuacct,cpu:/d\n",
            {"cpu/d/cpu.cfs_quota_us": "600000", "cpu/d/cpu.cfs_period_us": "100000", "cpuacct/x": ""},
            6,
        ),
        ("5:cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1", "cpu/d/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_cpu_count(tmp_path: Path, own: str, files: dict[str, str], cores: int) -> None:
    assert cpu_count(*cgroup(tmp_path, own, files)) == cores


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {}, 16384 * MIB),
        ("0::/\n", {"memory.max": "max\n"}, 16384 * MIB),
        ("0::/\n", {"memory.max": f"{512 * MIB}\n"}, 512 * MIB),
        ("0::/a\n", {"a/memory.max": "max\n", "memory.max": f"{700 * MIB}\n"}, 700 * MIB),
        ("9:memory:/docker/x\n", {"memory/memory.limit_in_bytes": f"{2048 * MIB}\n"}, 2048 * MIB),
        ("9:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16384 * MIB),
    ],
)
def test_memory_limit(tmp_path: Path, own: str, files: dict[str, str], limit: int) -> None:
    assert memory_limit(*cgroup(tmp_path, own, files)) == limit


def test_the_groups_that_limit_memory(tmp_path: Path) -> None:
    files = {"a/b/memory.max": f"{2 * MIB}\n", "a/memory.max": "max\n", "memory.max": f"{3 * MIB}\n"}
    cgroups, own = cgroup(tmp_path, "0::/a/b\n", files)
    assert resources.limited_groups(cgroups, own) == {cgroups / "a" / "b": 2 * MIB, cgroups: 3 * MIB}


def test_this_machine() -> None:
    assert 1 <= cpu_count() <= len(os.sched_getaffinity(0))
    assert 64 * MIB < memory_limit() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("cores", "memory", "workers", "threads", "expected"),
    [
        (4, 8192, None, None, Share(4, 2, 1)),
        (4, 8192, None, 2, Share(2, 2, 2)),
        (4, 8192, 2, None, Share(2, 2, 2)),
        (4, 8192, 8, None, Share(8, 2, 1)),
        (4, 8192, 3, 2, Share(3, 2, 2)),
        (4, 1200, None, None, Share(2, 2, 2)),  # a worker of this model needs 410 MiB beside the server's 300
        (4, 200, None, None, Share(1, 4, 4)),
        (4, 8192, None, 1, Share(4, 1, 1)),
        (1, 8192, None, None, Share(1, 1, 1)),
    ],
)
def test_plan(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    memory: int,
    workers: int | None,
    threads: int | None,
    expected: Share,
) -> None:
    monkeypatch.setattr(resources, "cpu_count", lambda: cores)
    monkeypatch.setattr(resources, "memory_limit", lambda: memory * MIB)
    assert plan(workers, threads, 100 * MIB) == expected


@pytest.mark.parametrize(
    ("total", "workers", "largest", "expected"),
    [
        # Room for 6 MB bodies of a full queue and of two workers; the rest is for images.
        (8192, 2, 6, (6, 102 * 6 + 4 * 6, 24, (8192 - 300 - 2 * 260 - 102 * 6 - 4 * 6 - 24) // 2)),
        (8192, 2, 1000, (1000, 7372 // 3, 7372 // 3, 7372 // 6)),
        (4096, 2, 1024, (1024, 1092, 2048, 68)),  # one of the largest, at least
        (2048, 2, 1024, ((1228 - 128) // 3, 1228 // 3, 2 * (1228 - 128) // 3, 64)),  # they do not fit: smaller ones do
        (1400, 2, 6, (6, 580 // 3, 24, (580 - 193 - 24) // 2)),
        (300, 2, 6, (6, 85, 24, 73)),  # never less, however little there is
    ],
)
def test_memory(
    monkeypatch: pytest.MonkeyPatch, total: int, workers: int, largest: int, expected: tuple[int, ...]
) -> None:
    monkeypatch.setattr(resources, "memory_limit", lambda: total * MIB)
    found = resources.memory(workers, 100 * MIB, largest * MIB, 102)
    shares = (found.largest, found.bodies, found.copies, found.image)
    assert [share // MIB for share in shares] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("total", "heap"), [(500, 128), (4096, 256), (65536, 1024)])
def test_the_heap_follows_the_containers_memory(monkeypatch: pytest.MonkeyPatch, total: int, heap: int) -> None:
    monkeypatch.setattr(resources, "memory_limit", lambda: total * MIB)
    assert resources.memory(2, 100 * MIB, 6 * MIB, 102).heap == heap * MIB
