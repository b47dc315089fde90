"""The cost of watching: `python tests/bench/bench_monitor.py [--seconds 30] [--turns 2]`.

The sampler's schedule and processor time, at 100 and 500 ms; and the training loop's steps with nothing, with the
profiler, and with profiler and debugger, in turns, so that other work on the machine hits all of them alike. Wall time
holds what the processes beside the training take from its cores; processor time is the training process's own.
"""

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_train import command_line
from container_train.compute.precision import Precision
from container_train.compute.runtime import Runtime
from container_train.data.unreadable import Unreadable
from container_train.distributed.process_group import SINGLE
from container_train.features.sources import Batch
from container_train.model import builder
from container_train.monitoring.monitor import Monitor
from container_train.monitoring.sidecar import SAMPLER
from container_train.paths import SageMakerPaths
from container_train.profiler import store
from container_train.signals import StopFlag
from container_train.training.engine import Trainer
from tests.bench.arguments import positive, whole

CLASSES = 133
OFF = {"debug": "off", "profile-interval": "0"}
STARTS: list[float] = []  # processor seconds of the watchers' starts
KINDS = {"nothing": OFF, "profiler": {"debug": "off"}, "profiler and debugger": {}}


def sampler(interval: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", SAMPLER, f"{folder}/profiler", str(interval), "algo-1"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
        time.sleep(seconds)
        took = sum(psutil.Process(process.pid).cpu_times()[:2])
        process.communicate(b"end\n")
        rows = store.system(Path(folder)).series(store.MEMORY).values()
        times = next(iter(rows)).times
    errors = np.abs(1000 * np.diff(times) - interval)
    missed = round(1000 * (times[-1] - times[0]) / interval) + 1 - len(times)
    print(
        f"every {interval:3} ms: {len(times):4} samples, {missed} missed; interval off by"
        f" {np.median(errors):.2f} ms (median), {np.percentile(errors, 99):.2f} (p99), {errors.max():.2f} (max);"
        f" {100 * took / seconds:.2f} % of one core, {took:.2f} s in all",
        flush=True,
    )


class Source:
    """The same batch again and again; epochs of as many steps as 6680 pictures are."""

    cache: ClassVar[dict[tuple[str, int], Any]] = {}

    def __init__(self, network: builder.Network, hp: Any, inputs: tuple[torch.Tensor, ...], steps: int) -> None:
        self.network, self.hp, self.device, self.group = network, hp, torch.device("cpu"), SINGLE
        self.runtime = Runtime(self.device, Precision.choose("off", self.device), StopFlag())
        self.inputs, self.steps, self.batch = inputs, steps, len(inputs[0])
        splits: Any = {"train": range(steps * self.batch), "valid": range(self.batch)}
        self.data = SimpleNamespace(splits=splits, classes=range(CLASSES), unreadable=Unreadable(splits, {}, 0))
        self.targets = {name: torch.arange(len(split)) % CLASSES for name, split in splits.items()}

    def features(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return inputs

    def training(self, epoch: int, skip: int) -> Iterator[Batch]:
        for _ in range(self.steps):
            yield self.inputs, self.targets["valid"]

    def length(self, split: str) -> int:
        return len(self.targets[split])

    def indices(self, split: str, epoch: int) -> torch.Tensor:
        return torch.arange(len(self.targets[split]))

    def agree(self) -> None:
        pass

    def close(self) -> None:
        pass

    def evaluation(self, split: str) -> Iterator[Batch]:
        yield self.inputs, self.targets["valid"]


def until_idle(process: psutil.Process) -> None:
    """Print the time that the watcher takes once, for its imports: it does not count for steps."""
    before, quiet = -1.0, 0
    while quiet < 4:
        time.sleep(1)
        now = sum(process.cpu_times()[:2])
        quiet = quiet + 1 if now - before < 0.05 else 0
        before = now
    STARTS.append(before)


def step_times(
    network: builder.Network, inputs: tuple[torch.Tensor, ...], steps: int, options: dict[str, str]
) -> tuple[float, float]:
    """Wall and processor seconds of a step of a real training, start and end of the processes beside it left out."""
    words = {
        "arch": "resnet50",
        "amp": "off",
        "batch-size": str(len(inputs[0])),
        "epochs": "1",
        "lr": "1e-5",
        **options,
    }
    hp = command_line.parse([word for key, value in words.items() for word in (f"--{key}", value)])
    source: Any = Source(network, hp, inputs, steps)
    with tempfile.TemporaryDirectory() as folder:
        tree = SageMakerPaths(Path(folder))
        with Monitor.start(tree, hp) as monitor:
            if monitor.watcher is not None:
                until_idle(psutil.Process(monitor.watcher.process.pid))
            it = Trainer(source, tree.checkpoints, {}, None, monitor)
            spent: dict[str, float] = {}
            evaluate = it.learner.evaluate

            def epoch_is_over(split: str, *_: Any) -> Any:
                spent["wall"] = time.perf_counter() - started[0]
                spent["cpu"] = time.process_time() - started[1]
                return evaluate(split)

            it.learner.evaluate = epoch_is_over  # type: ignore[assignment, method-assign]
            training = source.training

            def from_now(epoch: int, skip: int) -> Iterator[Batch]:
                started[:] = time.perf_counter(), time.process_time()
                yield from training(epoch, skip)

            started: list[float] = []
            source.training = from_now
            it.fit()
    return spent["wall"] / steps, spent["cpu"] / steps


def training(name: str, arch: str, side: int, freeze: str, batch: int, steps: int, turns: int) -> None:
    network = builder.build(arch, CLASSES, weights="none", weights_file=None, freeze_until=freeze, image_size=side)
    pictures = torch.rand(batch, 3, side, side)
    with torch.no_grad():
        inputs = (pictures,) if network.backbone is None else network.backbone(pictures)
    walls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpus: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(turns):
        for kind in list(KINDS) if turn % 2 else reversed(list(KINDS)):
            wall, cpu = step_times(network, inputs, steps, KINDS[kind])
            walls[kind].append(1000 * wall)
            cpus[kind].append(1000 * cpu)
    print(f"{name}, batches of {batch}, {steps} steps, {turns} turns")
    for kind in KINDS:
        wall, cpu = statistics.median(walls[kind]), statistics.median(cpus[kind])
        ratios = [
            100 * (statistics.median(a / b for a, b in zip(values[kind], values["nothing"], strict=True)) - 1)
            for values in (walls, cpus)
        ]
        more = cpu - statistics.median(cpus["nothing"])
        print(
            f"  {kind:22} {wall:8.2f} ms wall ({ratios[0]:+.1f} %), {cpu:8.2f} ms processor ({ratios[1]:+.1f} %,"
            f" {more:+.3f} ms)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=30, help="of each run of the sampler")
    parser.add_argument("--turns", type=whole, default=2, help="(default: %(default)s)")
    parser.add_argument("--steps", type=whole, default=105, help="an epoch of 6680 pictures has so many")
    parser.add_argument("--only", choices=("sampler", "head", "full"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    for interval in (100, 500) if options.only in (None, "sampler") else ():
        sampler(interval, options.seconds)
    if options.only in (None, "head"):
        training("head of resnet50 on features", "resnet50", 224, "backbone", 64, options.steps, options.turns)
    if options.only in (None, "full"):
        training(
            "mobilenet_v3_small, 128 pixels", "mobilenet_v3_small", 128, "none", 32, options.steps // 3, options.turns
        )
    if STARTS:
        print(f"start of the watcher, once a job: {statistics.median(STARTS):.1f} s of processor time, at low priority")


if __name__ == "__main__":
    main()
