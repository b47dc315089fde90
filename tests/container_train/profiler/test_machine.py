from pathlib import Path

from container_train.profiler.machine import Machine

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


def proc(root: Path) -> Path:
    (root / "net").mkdir()
    (root / "stat").write_text(STAT)
    (root / "diskstats").write_text(DISKS)
    (root / "net" / "dev").write_text(NETWORK)
    (root / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nHugePages_Total: 0\n")
    return root


def test_counters(tmp_path: Path) -> None:
    machine = Machine(proc(tmp_path), cores=[0, 1])
    # busy, waiting for a disk, all; cpu2 is not among the cores that the process may use
    assert machine.core_times() == {"cpu0": (160, 40, 700), "cpu1": (145, 10, 635)}
    assert machine.disk() == (512 * 111, 512 * 222, 10 + 20 + 1 + 2 + 5 + 5)
    assert machine.network() == (1100, 40)
    assert machine.memory_bytes() == 600 * 1024


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cores=[0])
    assert machine.core_times() == {}
    assert (machine.disk(), machine.network(), machine.memory_bytes()) == (None, None, None)


def test_this_machine() -> None:
    machine = Machine()
    times = machine.core_times()
    assert len(times) == len(machine.cores)
    assert all(0 <= busy <= total for busy, _, total in times.values())
    assert (machine.memory_bytes() or 0) > 1e6
