"""Checks of what a GPU does differently in training: `python tests/bench/check_gpu.py [--data DIR]`.

Losses that are read a step late, stops and resumes, features that stay on the GPU, the GPU's own clock, and compiled
steps: where no test reaches them, for the tests run on CPUs. A minute; the exit code is 1 where something is wrong.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from container_train.errors import Stopped, TrainError
from container_train.features.sources import order
from container_train.monitoring.monitor import OFF, Monitor
from container_train.profiler.timeline import COLUMNS, NAME, TimelineWriter
from container_train.signals import StopFlag
from container_train.training import checkpoint
from container_train.training.engine import Trainer
from tests.bench.arguments import existing
from tests.bench.bench_gpu import DEVICE, Job  # first: it sets the environment before torch is loaded

BATCH, STEPS = 32, 5
Words = dict[str, object]  # hyperparameters
ALL: Words = {"freeze-until": "none", "feature-cache": "off"}


class StopAt(StopFlag):
    """Asks for a stop at a step of the second epoch."""

    def __init__(self, it: Trainer, step: int) -> None:
        self.it, self.step = it, step

    @property
    def asked(self) -> bool:
        return self.it.state.epoch == 1 and self.it.state.step >= self.step

    @asked.setter
    def asked(self, value: bool) -> None: ...


def trainer(job: Job, folder: Path, words: Words, monitor: Monitor = OFF) -> Trainer:
    hp = job.hp({"epochs": 2, "lr": 1e-3, "amp": "off", **words})
    source = job.source(hp, folder)
    torch.backends.cudnn.benchmark = False  # which would take other kernels, and round otherwise, in each training
    torch.backends.cudnn.deterministic = True
    resumed = checkpoint.load(folder, {})
    return Trainer(source, folder, {}, resumed, monitor)


def weights(it: Trainer) -> torch.Tensor:
    changing = checkpoint.changing(it.network.model).values()
    return torch.cat([value.float().flatten() for value in changing])


def resume(job: Job, folder: Path, words: Words) -> str:
    whole = trainer(job, folder / "whole", words)
    history = whole.fit()
    cut = trainer(job, folder / "cut", words)
    cut.learner.stop = StopAt(cut, 3)
    try:
        cut.fit()
    except Stopped as stopped:
        said = str(stopped)
    again = trainer(job, folder / "cut", words)
    assert (again.state.epoch, again.state.step, again.state.tally.seen) == (1, 3, 3 * BATCH), again.state
    resumed = again.fit()
    off = float((weights(whole) - weights(again)).norm() / weights(whole).norm())
    losses = [row["train_loss"] for row in history], [row["train_loss"] for row in resumed]
    assert off < 1e-5, off
    assert abs(losses[0][1] - losses[1][1]) < 0.05 * losses[0][1], losses
    return f"{said}; weights off by {off:.1e}, losses {losses}"


def not_finite(job: Job, folder: Path) -> str:
    it = trainer(job, folder, {})
    step = it.learner.step

    def broken(*arguments: Any) -> None:
        if it.state.step == 2:
            with torch.no_grad():
                it.network.trainable()[0].fill_(float("nan"))
        step(*arguments)

    it.learner.step = broken  # type: ignore[assignment]
    said = "it went on"
    try:
        it.fit()
    except TrainError as error:
        said = str(error)
    assert "in epoch 1, step 3" in said, said
    return said


def features(job: Job, folder: Path) -> str:
    """The first pass gives what the frozen layers give; the cache is on the device."""
    source = job.source(job.hp({"augment": "crop", "augment-views": 2, "epochs": 2, "amp": "off"}), folder)
    assert len(source.cache) == 3
    assert all(feature.device.type == DEVICE.type for part in source.cache.values() for feature in part)
    cache, source.cache = source.cache, {}
    source.workers = 2
    worst = 0.0
    for epoch in range(2):
        batches = source.training(epoch, 0)
        cached = cache["train", epoch][0]
        rows = order(len(cached), source.hp.seed, epoch).to(cached.device).split(BATCH)
        for (images, _), indices in zip(batches, rows, strict=True):
            assert isinstance(images, torch.Tensor)
            ours = source.extractor(images)[0]
            worst = max(worst, float((ours - cached[indices]).norm() / ours.norm()))
    source.close()
    assert worst < 1e-3, worst
    return f"features off by {worst:.1e}"


def clock(job: Job, folder: Path) -> str:
    monitor = Monitor()
    monitor.timeline = TimelineWriter(folder)
    trainer(job, folder, ALL, monitor).fit()
    monitor.timeline.close()
    rows = [row for line in (folder / NAME).read_text().splitlines() if (row := json.loads(line))["kind"] == "steps"]
    parts = [[value for row in rows for value in row[name]] for name in COLUMNS]
    assert len(parts[0]) == 2 * STEPS, len(parts[0])
    for total, *each in zip(*parts, strict=True):
        assert min(each) >= 0
        assert sum(each) <= total + 1e-5, (total, each)
    return ", ".join(f"{name} {1000 * sum(v) / len(v):.1f} ms" for name, v in zip(COLUMNS, parts, strict=True))


def compiled(job: Job, folder: Path) -> str:
    eager = trainer(job, folder / "eager", ALL).fit()
    fast = trainer(job, folder / "compiled", {**ALL, "compile": "on"}).fit()
    losses = [row["train_loss"] for row in eager], [row["train_loss"] for row in fast]
    assert abs(losses[0][0] - losses[1][0]) < 0.1 * losses[0][0], losses
    return f"losses {losses}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=existing, help="a folder with JPEG files, at any depth")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    vars(options).update(images=BATCH * STEPS, batch=BATCH, side=64, arch="resnet18", workers=2)
    checks: dict[str, Callable[[Job, Path], str]] = {
        "resume, cached features": lambda job, folder: resume(job, folder, {}),
        "resume, all layers": lambda job, folder: resume(job, folder, {**ALL, "augment": "crop"}),
        "a loss that is not finite": not_finite,
        "features": features,
        "clock": clock,
        "compiled": compiled,
    }
    failed = False
    with tempfile.TemporaryDirectory() as base:
        job = Job(Path(base), options, "224x224")
        for name, check in checks.items():
            try:
                folder = Path(base, name)
                folder.mkdir()
                print(f"{name}: {check(job, folder)}", flush=True)
            except Exception as error:
                failed = True
                logging.getLogger().error("%s", name, exc_info=error)
                print(f"{name}: FAILED, {type(error).__name__}: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
