"""Training beside what a GPU and a data loader can do: `python tests/bench/bench_gpu.py [--data DIR] [--profile]`.

In turns, at photographs of 600x450 and of 224x224 pixels, ResNet50 in mixed precision, batches of 64:
* bare: the network's steps on synthetic data that is on the GPU already;
* loader: torchvision's reference transforms in a DataLoader, without any network;
* plain: a loop as torchvision's references/classification has it, over that loader;
* ours: this project, all layers, random crops (the second epoch); and the first pass of frozen layers.

The photographs are those below --data, else some of scikit-image's wheel, in a set of hard links. Loader and plain loop
are measured from their first batch on, ours over a whole epoch; the first pass and the loader beside it with the start
of their processes.
--profile prints the parts of a step on the GPU's own clock and torch.profiler's table of our loop, --compile measures
the bare loop and ours compiled, too. Needs torch, torchvision, numpy, Pillow and psutil; the last line is JSON.
"""

import argparse
import functools
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the program has it, before torch is loaded

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_train import command_line
from container_train.compute.precision import Precision
from container_train.compute.runtime import Runtime
from container_train.data import sample
from container_train.data.dataset import Data
from container_train.data.files import Files, Split
from container_train.data.unreadable import Unreadable
from container_train.features.cache import Cache
from container_train.features.location import Store
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import builder
from container_train.monitoring.monitor import OFF, Monitor
from container_train.paths import SageMakerPaths
from container_train.profiler.timeline import COLUMNS, NAME, TimelineWriter
from container_train.signals import StopFlag
from container_train.training.engine import Trainer
from tests.bench.arguments import existing, new_file, whole
from tests.bench.bench_training import timed

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
SIZES = {"600x450": (600, 450), "224x224": (224, 224)}
CLASSES = 20
VALID = 64  # images
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(folder: Path | None, size: tuple[int, int], to: Path) -> list[Path]:
    """The photographs below `folder`, or some of scikit-image's, as JPEG files of one size in `to`."""
    at = sample.folder_of_photographs() if folder is None else folder
    named = map(at.joinpath, sample.PHOTOGRAPHS.values()) if folder is None else at.rglob("*.jp*g")
    found = []
    for number, file in enumerate(sorted(filter(Path.is_file, named))[:40]):
        with Image.open(file) as image:
            found.append(to / f"{number}.jpg")
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(found[-1], quality=88)
    return found


class Job:
    """A set of `images` links to photographs, and the ways to go through it."""

    def __init__(self, base: Path, options: argparse.Namespace, size: str) -> None:
        self.base, self.options = base / size, options
        self.batch, self.side = options.batch, options.side
        self.base.mkdir()
        files = photographs(options.data, SIZES[size], self.base)
        splits = {}
        for name, count in {"train": options.images, "valid": VALID, "test": CLASSES}.items():
            paths = Files(self.base / name, [f"{number % CLASSES:02}/{number}.jpg" for number in range(count)])
            for number, path in enumerate(paths):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(files[number % len(files)], path)
            splits[name] = Split(name, paths, np.arange(count) % CLASSES)
        self.data = Data(tuple(map(str, range(CLASSES))), splits, splits, {}, size, (), Unreadable(splits, {}, 0))

    def hp(self, words: Mapping[str, object]) -> Hyperparameters:
        words = {
            "arch": self.options.arch, "image-size": self.side, "resize-size": round(self.side / 0.966),
            "batch-size": self.batch, "workers": self.options.workers, "debug": "off", "profile-interval": 0,
            "measure": "none", **words,
        }  # fmt: skip
        return command_line.parse([word for key, value in words.items() for word in (f"--{key}", str(value))])

    def _network(self, hp: Hyperparameters) -> builder.Network:
        weights = self.base.parent / "weights.pth"
        if not weights.exists():
            torch.save(builder.bare(hp.arch, 1000).state_dict(), weights)
        network = builder.build(
            hp.arch, CLASSES, weights="DEFAULT", weights_file=weights, freeze_until=hp.freeze_until,
            resize_size=hp.resize_size, image_size=hp.image_size,
        )  # fmt: skip
        network.to(DEVICE)
        return network

    def source(self, hp: Hyperparameters, folder: Path) -> Source:
        precision = Precision.choose(hp.amp, DEVICE)
        precision.prepare()
        store = Store.of(SageMakerPaths(folder))
        return Source(self.data, self._network(hp), hp, Runtime(DEVICE, precision, StopFlag()), store)

    def bare(self, compiled: bool = False) -> float:
        model: Any = torchvision.models.get_model(self.options.arch, num_classes=CLASSES)
        model = model.to(DEVICE, memory_format=torch.channels_last)
        optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-4, fused=GPU), nn.CrossEntropyLoss()
        precision = Precision.choose("auto", DEVICE)
        precision.prepare()
        model = torch.compile(model) if compiled else model
        images = torch.randn(self.batch, 3, self.side, self.side, device=DEVICE)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.arange(self.batch, device=DEVICE) % CLASSES
        steps = max(2, self.options.images // self.batch // 2)
        for step in range(steps + steps // 4 + 1):
            if step == steps // 4 + 1:
                synchronize()
                started = time.perf_counter()
            with precision.autocast():
                value = loss(model(images), targets)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
        synchronize()
        return float(steps * self.batch / (time.perf_counter() - started))

    def _reference(self) -> DataLoader[Any]:
        transform = v2.Compose(
            [
                v2.RandomResizedCrop(self.side, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )
        pictures = torchvision.datasets.ImageFolder(str(self.base / "train"), transform)
        return DataLoader(
            pictures, self.batch, shuffle=True, num_workers=self.options.workers, pin_memory=GPU, drop_last=True
        )

    def loader(self) -> float:
        return rate(((len(targets), None) for _, targets in self._reference()))

    def loader_with_start(self) -> float:
        started = time.perf_counter()
        images = sum(len(targets) for _, targets in self._reference())
        return images / (time.perf_counter() - started)

    def plain(self) -> float:
        """The loss and the accuracy of each step are read at once, as the reference's meters do."""
        model = torchvision.models.get_model(self.options.arch, num_classes=CLASSES).to(DEVICE)
        optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss()
        precision = Precision.choose("auto", DEVICE)
        precision.prepare()

        def steps() -> Iterator[tuple[int, float]]:
            for images, targets in self._reference():
                images, targets = images.to(DEVICE, non_blocking=True), targets.to(DEVICE, non_blocking=True)
                with precision.autocast():
                    logits = model(images)
                    value = loss(logits, targets)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                top = logits.topk(5, 1).indices.eq(targets[:, None])
                yield len(targets), value.item() + top[:, 0].float().mean().item() + top.float().mean().item()

        model.train()
        return rate(steps())

    def ours(self, monitor: Monitor = OFF, **words: object) -> float:
        hp = self.hp({"freeze-until": "none", "augment": "crop", "epochs": 2, "lr": 1e-4, **words})
        with tempfile.TemporaryDirectory(dir=self.base) as folder:
            trainer = Trainer(self.source(hp, Path(folder)), Path(folder) / "checkpoints", {}, None, monitor)
            return float(trainer.fit()[-1]["images_per_second"])

    def first_pass(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.base) as folder, timed(Cache, "fill") as seconds:
            self.source(self.hp({}), Path(folder))
        return float((self.options.images + VALID) / seconds[0])

    def profile(self) -> None:
        """Print the parts of a step, and the operators that take longest."""
        monitor = Monitor()
        monitor.timeline = TimelineWriter(self.base)
        self.ours(monitor)
        monitor.timeline.close()
        rows = [json.loads(line) for line in (self.base / NAME).read_text().splitlines()]
        steps = [row for row in rows if row["kind"] == "steps" and row["epoch"] == 2]
        for name in COLUMNS:
            values = [1000 * value for row in steps for value in row[name]]
            print(f"  {name:10} {statistics.mean(values):8.2f} ms a step, median {statistics.median(values):.2f}")
        activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if GPU else [])]
        with torch.profiler.profile(activities=activities) as profiler:
            self.ours(epochs=1)
        for key in ("self_cuda_time_total",) * GPU + ("self_cpu_time_total",):
            print(profiler.key_averages().table(sort_by=key, row_limit=18, max_name_column_width=60), flush=True)


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def rate(steps: Iterator[tuple[int, Any]]) -> float:
    """Images per second after the first step."""
    next(steps)
    started, images = time.perf_counter(), 0
    for count, _ in steps:
        images += count
    synchronize()
    return images / (time.perf_counter() - started)


def table(found: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Print the rates and their ratios; return the latter with their goals."""
    rows = []
    for size, ways in found.items():
        print(f"{size}:")
        for way, values in ways.items():
            print(f"  {way:24} {statistics.median(values):8.0f} images/s ({min(values):.0f} to {max(values):.0f})")
        limit = [min(pair) for pair in zip(ways["bare"], ways["loader"], strict=True)]
        ratios = [
            ("all layers / smaller of bare and loader", ways["ours"], limit, 1.0 if size == "600x450" else None),
            ("all layers / bare", ways["ours"], ways["bare"], 0.9 if size == "224x224" else None),
            ("all layers / plain", ways["ours"], ways["plain"], 1.3 if size == "600x450" else None),
            ("first pass / loader", ways["first pass"], ways["loader, started"], 1.0 if size == "600x450" else None),
        ]
        for name, ours, theirs, goal in ratios:
            values = [a / b for a, b in zip(ours, theirs, strict=True)]
            row: dict[str, Any] = {"name": f"{size}: {name}", "goal": f"{goal:g} x" if goal else "", "unit": "x"}
            row |= {"measured": statistics.median(values), "spread": [min(values), max(values)]}
            rows.append(row | {"repetitions": len(values)})
            said = f"  goal {goal:g}" if goal else ""
            print(f"  {name:42} {row['measured']:6.2f} ({min(values):.2f} to {max(values):.2f}){said}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=existing, help="a folder with JPEG files, at any depth")
    parser.add_argument("--turns", type=whole, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=whole, default=130, help="after which no turn begins (default: %(default)s)")
    parser.add_argument("--images", type=whole, default=6400 if GPU else 16, help="(default: %(default)s)")
    parser.add_argument("--batch", type=whole, default=64 if GPU else 4, help="(default: %(default)s)")
    parser.add_argument("--side", type=whole, default=224 if GPU else 64, help="(default: %(default)s)")
    parser.add_argument("--arch", default="resnet50" if GPU else "resnet18", help="(default: %(default)s)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=whole, default=min(12, cores), help="(default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes, and no table")
    parser.add_argument("--compile", action="store_true", help="the bare loop and ours compiled, too")
    parser.add_argument("--out", type=new_file, help="a JSON file for the ratios")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    machine = torch.cuda.get_device_name() if GPU else "CPU"
    print(f"{machine}, {cores} cores, torch {torch.__version__}, {options.images} images, batch {options.batch}")
    started = time.monotonic()
    found: dict[str, dict[str, list[float]]] = {}
    # On a RAM disk: what is measured is not the disk.
    memory = "/dev/shm" if GPU else None
    with tempfile.TemporaryDirectory(dir=memory) as base:
        jobs = {size: Job(Path(base), options, size) for size in options.sizes}
        if options.profile:
            for size, job in jobs.items():
                print(f"{size}:")
                job.profile()
            return
        longest = 0.0
        for turn in range(options.turns):
            began = time.monotonic()
            if turn and began - started + longest > options.seconds:
                print(f"no time for turn {turn + 1}")
                break
            for size, job in jobs.items():
                ways: dict[str, Callable[[], float]] = {
                    "bare": job.bare, "loader": job.loader, "plain": job.plain, "ours": job.ours,
                    "loader, started": job.loader_with_start, "first pass": job.first_pass,
                }  # fmt: skip
                if options.compile and not turn:
                    ways |= {"bare, compiled": functools.partial(job.bare, compiled=True)}
                    ways |= {"ours, compiled": functools.partial(job.ours, compile="on")}
                of = found.setdefault(size, {})
                for way in list(ways) if turn % 2 == 0 else reversed(list(ways)):
                    of.setdefault(way, []).append(ways[way]())
                words = ", ".join(f"{way} {values[-1]:.0f}" for way, values in of.items())
                print(f"turn {turn + 1}, {size}: {words} ({time.monotonic() - started:.0f} s)", flush=True)
            longest = max(longest, time.monotonic() - began)
        rows = table(found)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps({"machine": machine, "torch": torch.__version__, "rates": found, "ratios": rows}))


if __name__ == "__main__":
    main()
