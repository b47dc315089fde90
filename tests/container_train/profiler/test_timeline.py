"""The timeline as it is written, and as the store reads it back."""

import os
from pathlib import Path

import numpy as np
import pytest

from container_train.profiler import store
from container_train.profiler import timeline as module
from container_train.profiler.timeline import TimelineWriter

SECONDS = (0.5, 0.1, 0.2, 0.1, 0.05)


def write(out: Path) -> TimelineWriter:
    return TimelineWriter(out / "profiler")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    timeline = write(tmp_path)
    timeline.begin("train", 100.0, None)
    for number in range(3):
        timeline.step(1, number, 100.0 + number / 2, SECONDS)
    timeline.begin("evaluate", 101.5, 1)
    timeline.phase("evaluate", 101.5, 102.0, 1)
    timeline.epoch({"epoch": 1, "train_loss": 0.25})
    timeline.step(2, 3, 102.0, SECONDS)
    timeline.phase("train", 100.0, 103.0, None)
    timeline.close()
    read = store.timeline(tmp_path)
    assert [(p.name, p.start, p.end, p.epoch) for p in read.phases] == [
        ("train", 100.0, 103.0, None),
        ("evaluate", 101.5, 102.0, 1),
    ]
    assert read.epochs[0]["train_loss"] == 0.25
    steps = read.steps
    assert steps.number.tolist() == [0, 1, 2, 3]
    assert steps.epoch.tolist() == [1, 1, 1, 2]
    assert steps.start.tolist() == [100.0, 100.5, 101.0, 102.0]
    assert steps.weight.tolist() == [1, 1, 1, 1]
    for name, value in zip(module.COLUMNS, SECONDS, strict=True):
        assert getattr(steps, name).tolist() == [value] * 4


def test_a_job_that_was_killed_has_the_phase_in_which_it_was(tmp_path: Path) -> None:
    timeline = write(tmp_path)
    timeline.begin("features", 100.0, None)
    timeline.phase("features", 100.0, 104.0, None)
    timeline.begin("train", 104.0, None)
    timeline.step(1, 0, 104.0, SECONDS)
    timeline.flush()
    os.write(timeline.file, b'{"kind":"steps","epoch":1,"fir')  # and then the power was gone
    read = store.timeline(tmp_path)
    assert [(p.name, p.end) for p in read.phases] == [("features", 104.0), ("train", 104.5)]
    assert len(read.steps) == 1


def test_a_long_training_is_thinned_and_its_sums_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THIN_AFTER", 100)
    timeline = write(tmp_path)
    count = 20_000
    for number in range(count):
        timeline.step(1 + number // 1000, number, 100.0 + number / 2, SECONDS)
    timeline.close()
    steps = store.timeline(tmp_path).steps
    assert len(steps) < 1000
    assert steps.weight.max() > 64
    assert abs(steps.weight.sum() - count) < 0.02 * count
    assert np.all(np.diff(steps.number) > 0)
    assert np.allclose(steps.start, 100.0 + steps.number / 2, atol=200)


def test_a_job_without_a_timeline(tmp_path: Path) -> None:
    read = store.timeline(tmp_path)
    assert (read.phases, len(read.steps), read.epochs) == ([], 0, [])
    assert store.job(tmp_path) == {}
    assert store.system(tmp_path).nodes() == []
