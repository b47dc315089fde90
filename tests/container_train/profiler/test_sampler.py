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
from container_train.profiler.cgroup import Cgroup
from container_train.profiler.gpu import Gpus
from container_train.profiler.machine import Machine
from container_train.profiler.sampler import Files, Sampler, Statistics, run
from tests.container_train.profiler.nvml import Library


def start(folder: Path, interval: int, stderr: int | None = None) -> subprocess.Popen[bytes]:
    words = ["--folder", str(folder), "--interval", str(interval)]
    return subprocess.Popen(
        [sys.executable, "-m", "container_train.profiler.sampler", *words], stdin=subprocess.PIPE, stderr=stderr
    )


def read_back(folder: Path) -> list[object]:
    reader = LocalSystemMetricsReader(str(folder))
    events: list[object] = reader.get_events(0, (time.time() + 60) * 1e6)
    return events


def test_smdebug_reads_what_the_sampler_wrote(tmp_path: Path) -> None:
    process = start(tmp_path, 100)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)  # the training program's to handle
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.communicate(b"end completed\n", timeout=60)
    assert process.returncode == 0
    statistics = json.loads((tmp_path / "sampler.json").read_text())
    assert statistics["interval_ms"] == 100
    events = read_back(tmp_path)
    names = Counter((e.type, e.name, e.dimension) for e in events)  # type: ignore[attr-defined]
    samples = statistics["samples"]
    assert samples > 3
    for core in os.sched_getaffinity(0):
        assert names["cpu", f"cpu{core}", "CPUUtilization"] == samples
        assert names["cpu", f"cpu{core}", "I/OWaitPercentage"] == samples
    assert names["memory", "MemoryUsedPercent", ""] == samples
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
    assert json.loads((tmp_path / "sampler.json").read_text())["samples"] == 0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "system").write_text("in the way")
    process = start(tmp_path, 100, stderr=subprocess.PIPE)
    assert process.wait(60) == 1
    assert process.stderr is not None
    words = process.stderr.read().decode()
    assert words.startswith("sampler: ")
    assert len(words.strip().splitlines()) == 1


class Slow(Sampler):
    """Takes three and a half intervals for its third sample."""

    count = 0

    def rows(self) -> list[module.Row]:
        self.count += 1
        if self.count == 3:
            time.sleep(0.35)
        return super().rows()


def sample(folder: Path, seconds: float, sampler: Sampler) -> Statistics:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        time.sleep(seconds)
        os._exit(0)
    os.close(writing)
    try:
        return run(folder, 100, "algo-1", reading, sampler)
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


def test_missed_samples_are_counted_and_the_schedule_is_kept(tmp_path: Path) -> None:
    statistics = sample(tmp_path, 1.5, Slow(Machine(), Cgroup(), Gpus()))
    assert statistics.missed >= 2
    times = sorted({e.timestamp for e in read_back(tmp_path)})  # type: ignore[attr-defined]
    assert len(times) == statistics.samples
    planned = round(10 * (times[-1] - times[0])) + 1
    # One that was late moves first or last a little off the schedule.
    assert planned - 2 <= statistics.samples + statistics.missed <= planned + 2


def test_gpus_are_in_the_files(tmp_path: Path) -> None:
    sample(tmp_path, 0.5, Sampler(Machine(), Cgroup(), Gpus(Library())))
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


def test_a_long_job_s_files_grow_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_AN_INTERVAL", 1000)
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.2)
    assert sample(tmp_path, 1.2, Sampler(Machine(), Cgroup(), Gpus())).interval_ms > 100


def test_a_file_a_minute_in_a_folder_an_hour(tmp_path: Path) -> None:
    files = Files(tmp_path, "algo-2")
    for now in (1_600_000_019.5, 1_600_000_020.0, 1_600_003_620.25):
        files.add([("cpu", "cpu0", "CPUUtilization", 12.346)], now)
    files.write()
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
