"""The real sampler, as a process; its files are read back by smdebug's own reader."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from smdebug.profiler.system_metrics_reader import LocalSystemMetricsReader

from container_train.profiler import sampler as module
from container_train.profiler.gpu import Gpus
from container_train.profiler.sampler import Sampler, run, write
from tests.container_train.profiler.nvml import Library
from tests.contract.serving import until


def start(folder: Path, interval: int, stderr: int | None = None) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "container_train.profiler.sampler", str(folder), str(interval), "algo-1"]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stderr=stderr)


def read_back(folder: Path) -> list[object]:
    reader = LocalSystemMetricsReader(str(folder))
    events: list[object] = reader.get_events(0, (time.time() + 60) * 1e6)
    return events


def test_smdebug_reads_what_the_sampler_wrote(tmp_path: Path) -> None:
    process = start(tmp_path, 100)
    until(lambda: list(tmp_path.glob("system/incremental/*/*.json")), "the first sample", 60)
    process.send_signal(signal.SIGTERM)  # the training program's to handle
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.communicate(b"end completed\n", timeout=60)
    assert process.returncode == 0
    events = read_back(tmp_path)
    names = Counter((e.type, e.name, e.dimension) for e in events)  # type: ignore[attr-defined]
    samples = names["memory", "MemoryUsedPercent", ""]
    assert samples > 1
    for core in os.sched_getaffinity(0):
        assert names["cpu", f"cpu{core}", "CPUUtilization"] == samples
        assert names["cpu", f"cpu{core}", "I/OWaitPercentage"] == samples
    for name in ("IOPS", "ReadThroughputInBytesPerSecond", "WriteThroughputInBytesPerSecond"):
        assert names["i/o", name, ""] == samples
    for name in ("ReceiveBytesPerSecond", "TransmitBytesPerSecond"):
        assert names["network", name, "Algorithm"] == samples
    assert {e.node_id for e in events} == {"algo-1"}  # type: ignore[attr-defined]
    percentages = [e.value for e in events if "Percent" in f"{e.name} {e.dimension}"]  # type: ignore[attr-defined]
    assert all(0 <= value <= 100 for value in percentages)
    assert abs(max(e.timestamp for e in events) - time.time()) < 60  # type: ignore[attr-defined]


def test_the_end_of_the_pipe_ends_it(tmp_path: Path) -> None:
    process = start(tmp_path, 60_000)  # not only after the next sample
    time.sleep(0.5)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "system").write_text("in the way")
    process = start(tmp_path, 100, stderr=subprocess.PIPE)
    assert process.wait(60) == 1
    assert process.stderr is not None
    words = process.stderr.read().decode()
    assert words.startswith("sampler: ")
    assert len(words.strip().splitlines()) == 1


class Clock:
    """Stands for the sampler's clock and its waiting, as a machine has them on which every wait takes 1 ms too long."""

    strftime, gmtime, process_time = time.strftime, time.gmtime, time.process_time

    def __init__(self) -> None:
        self.now, self.began, self.end = 0.0, time.time(), 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.began + self.now

    def ended(self, _stdin: int, until: float) -> bool:
        if until >= self.end:
            return True
        self.now = max(self.now, until + 0.001)
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(module, "_ended", made.ended)
    return made


class Slow(Sampler):
    """Takes three and a half intervals for its third sample."""

    count = 0
    clock: Clock

    def rows(self) -> list[module.Row]:
        self.count += 1
        if self.count == 3:
            self.clock.now += 0.35
        return super().rows()


def sample(folder: Path, clock: Clock, seconds: float, sampler: Sampler) -> int:
    """Return the interval that it ended with."""
    clock.end = clock.now + seconds
    return run(folder, 100, "algo-1", -1, sampler)


def test_a_slow_sample_does_not_shift_the_schedule(tmp_path: Path, clock: Clock) -> None:
    slow = Slow()
    slow.clock = clock
    assert sample(tmp_path, clock, 1.45, slow) == 100
    times = sorted({e.timestamp - clock.began for e in read_back(tmp_path)})  # type: ignore[attr-defined]
    # The third ends at 0.651: those of 0.4 and 0.5 are missed, that of 0.6 is taken at once, and the next in time.
    assert times == pytest.approx([0.101, 0.201, 0.651, *(n / 10 + 0.001 for n in range(7, 15))], abs=1e-4)


def test_gpus_are_in_the_files(tmp_path: Path, clock: Clock) -> None:
    sample(tmp_path, clock, 0.25, Sampler(Gpus(Library())))
    events = read_back(tmp_path)
    values = {(e.name, e.dimension): e.value for e in events if e.type == "gpu"}  # type: ignore[attr-defined]
    assert values == {
        ("gpu0", "GPUUtilization"): 80,
        ("gpu0", "GPUMemoryUtilization"): 25,
        ("gpu0", "GPUPowerInWatts"): 72.5,
        ("gpu0", "GPUTemperatureInCelsius"): 60,
        ("gpu1", "GPUUtilization"): 20,
        ("gpu1", "GPUMemoryUtilization"): 50,
        ("gpu1", "GPUTemperatureInCelsius"): 61,
    }


def test_a_long_job_s_files_grow_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(module, "BYTES_AN_INTERVAL", 1000)
    assert sample(tmp_path, clock, 1.2, Sampler()) > 100


def test_a_file_a_minute_in_a_folder_an_hour(tmp_path: Path) -> None:
    for now in (1_600_000_019.5, 1_600_000_020.0, 1_600_003_620.25):
        write(tmp_path, "algo-2", [("cpu", "cpu0", "CPUUtilization", 12.346)], now)
    paths = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert paths == [
        "system/incremental/2020091312/1599999960.algo-2.json",
        "system/incremental/2020091312/1600000020.algo-2.json",
        "system/incremental/2020091313/1600003620.algo-2.json",
    ]
    row = json.loads((tmp_path / paths[0]).read_text())
    assert row == {
        "Type": "cpu",
        "Name": "cpu0",
        "Dimension": "CPUUtilization",
        "Value": 12.35,
        "NodeId": "algo-2",
        "Timestamp": 1_600_000_019.5,
    }
