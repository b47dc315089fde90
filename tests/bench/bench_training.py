"""The speed of training: `python tests/bench/bench_training.py [--data DIR] [--weights FILE] [--out FILE]`.

Ten epochs with frozen layers as people write them (each epoch decodes, runs the whole network and trains the last
layer) against the same through the feature cache, and the cache's first pass against the frozen layers alone; in turns,
so that other work on the machine hits all of them alike. With --accuracy: what layers trained on the features of either
way get right, over as many seeds. With --views: the same for augmented pictures, by the number of their views.
Speeds hang on the size of the pictures alone: without --data they are of 500x375 pixels, made from four photographs.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageChops
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve.preprocess import Preprocessing, preprocess
from container_train import command_line, hyperparameters
from container_train.compute.precision import Precision
from container_train.compute.runtime import Runtime
from container_train.data import dataset, loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data
from container_train.data.files import Split
from container_train.data.images import ImageDataset, Item, first_images
from container_train.features import extractor
from container_train.features.extractor import FeatureExtractor
from container_train.features.location import Store
from container_train.features.sources import Source
from container_train.model import builder
from container_train.paths import SageMakerPaths
from container_train.signals import StopFlag
from container_train.training.engine import Trainer
from tests.bench.arguments import existing, natural, new_file, whole

EPOCHS, BATCH = 10, 64
CPU = torch.device("cpu")
GOALS = {"speed": 6.0, "pass": 0.9}


def read(folder: Path, pictures: int, base: Path) -> Data:
    """The splits below `folder`, linked into `base`: of each class the first, about `pictures` in all (0: all)."""
    listed = {name: sorted((folder / name).iterdir()) for name in ("train", "valid", "test")}
    files = {name: [sorted(label.iterdir()) for label in labels] for name, labels in listed.items()}
    share = (
        pictures / sum(len(of_class) for name in ("train", "valid") for of_class in files[name]) if pictures else 1.0
    )
    for name, classes in files.items():
        for of_class in classes:
            for file in of_class[: max(1, round(share * len(of_class)))]:
                link = base / "input" / "data" / name / file.parent.name / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
    return dataset.read(SageMakerPaths(base))


def make(folder: Path) -> Path:
    """600 different pictures for training and validation, in 12 classes, and some for testing."""
    from tests.bench.servers import SMALL, pictures

    photographs = [Image.open(io.BytesIO(body)) for body in pictures()[SMALL]]
    for name, count in {"train": 44, "valid": 6, "test": 2}.items():
        for index in range(12 * count):
            shifted = ImageChops.offset(photographs[index % len(photographs)], 7 * index, 3 * index)
            path = folder / name / f"class {index % 12:02}" / f"{index:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shifted.save(path, quality=88)
    return folder


def random_weights(arch: str, file: Path) -> Path:
    """As fast as any; from a file, for a job without weights first estimates statistics for them."""
    torch.manual_seed(0)
    torch.save(builder.bare(arch, 1000).state_dict(), file)
    return file


def settings(**options: object) -> hyperparameters.Hyperparameters:
    words = {
        "epochs": EPOCHS,
        "debug": "off",
        "profile-interval": 0,
        "workers": len(os.sched_getaffinity(0)),
        **options,
    }
    return command_line.parse([word for key, value in words.items() for word in (f"--{key}", str(value))])


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """float32 tensors, made by the decoding processes, as people write it."""

    def __init__(self, split: Split, spec: Preprocessing) -> None:
        self.split, self.spec = split, spec

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, image: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(preprocess(self.split.paths[image].read_bytes(), self.spec)), self.split.targets[image]


class Setting:
    """One network and one set of pictures, run in each of the ways."""

    def __init__(self, pictures: Data, weights: Path, arch: str) -> None:
        self.data = pictures
        self.hp = settings(arch=arch)
        self.precision = Precision.choose("auto", CPU)
        self.network = builder.build(
            arch, len(pictures.classes), weights="DEFAULT", weights_file=weights, freeze_until="backbone",
        )  # fmt: skip
        self.network.to(CPU)
        self.count = sum(len(pictures.splits[name]) for name in ("train", "valid"))
        self.tensors = first_images(pictures.splits, self.network.preprocessing, 128)

    def frozen(self) -> FeatureExtractor:
        return FeatureExtractor(self.network, self.precision, CPU, exact=False, images=self.count)

    def plain_epoch(self) -> float:
        """Seconds: decode, run the whole network, train its last layer, validate."""
        whole, loss = self.network.model, nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam(self.network.trainable(), lr=1e-3)
        started = time.perf_counter()
        self.network.eval_mode()
        for name in ("train", "valid"):
            loader = DataLoader(
                Plain(self.data.splits[name], self.network.preprocessing), BATCH, shuffle=name == "train",
                num_workers=self.hp.workers,
            )  # fmt: skip
            for pictures, targets in loader:
                pictures = pictures.to(memory_format=torch.channels_last)
                with torch.set_grad_enabled(name == "train"), self.precision.autocast():
                    value = loss(whole(pictures), targets)
                if name == "train":
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
        return time.perf_counter() - started

    def cached_training(self) -> dict[str, float]:
        """Seconds of all that the cache needs, of its first pass alone, and of the epochs."""
        with tempfile.TemporaryDirectory() as folder:
            tree = SageMakerPaths(Path(folder))
            # What is only done once: the conversion, which the pass is told apart from.
            with timed(FeatureExtractor, "choose") as choosing:
                started = time.perf_counter()
                runtime = Runtime(CPU, self.precision, StopFlag())
                source = Source(self.data, self.network, self.hp, runtime, Store.of(tree))
                filled = time.perf_counter()
            trainer = Trainer(source, tree.checkpoints, {})
            trainer.fit()
            ended = time.perf_counter()
        return {
            "all": ended - started, "convert": sum(choosing), "pass": filled - started - sum(choosing),
            "epochs": ended - filled,
        }  # fmt: skip

    def forward_rate(self, layers: FeatureExtractor) -> float:
        """Pictures a second through the frozen layers, decoded before."""
        started = time.perf_counter()
        for _ in layers.run(self.tensors.split(layers.batch)):
            pass
        return len(self.tensors) / (time.perf_counter() - started)


@contextlib.contextmanager
def timed(owner: type, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a method."""
    before: Callable[..., Any] = getattr(owner, name)
    seconds: list[float] = []

    def method(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return before(*arguments)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(owner, name, method)
    try:
        yield seconds
    finally:
        setattr(owner, name, before)


def result(name: str, goal: str, values: list[float], unit: str) -> dict[str, Any]:
    return {
        "name": name, "goal": goal, "measured": round(statistics.median(values), 3), "unit": unit,
        "spread": [round(min(values), 3), round(max(values), 3)], "repetitions": len(values),
        "command": "python " + " ".join([str(Path("tests/bench/bench_training.py")), *sys.argv[1:]]),
    }  # fmt: skip


def speed(setting: Setting, repetitions: int) -> list[dict[str, Any]]:
    layers = setting.frozen()
    layers.choose(setting.tensors)
    setting.forward_rate(layers)
    turns: list[dict[str, float]] = []
    for turn in range(repetitions):
        before = setting.forward_rate(layers)
        cached = setting.cached_training()
        rates = [before, setting.forward_rate(layers)]
        plain = setting.plain_epoch()
        load = os.getloadavg()[0]
        turns.append({**cached, "plain": plain, "forward": statistics.mean(rates)})
        words = ", ".join(f"{key} {value:.1f}" for key, value in turns[-1].items())
        print(f"turn {turn + 1}: {words} (load {load:.1f})", flush=True)
    count = setting.count
    return [
        result(
            f"{EPOCHS} frozen epochs: plain loop over feature cache", f"at least {GOALS['speed']:g}",
            [EPOCHS * turn["plain"] / turn["all"] for turn in turns], "times",
        ),
        result(
            "first pass over the frozen layers alone", f"at least {GOALS['pass']:g}",
            [count / turn["pass"] / turn["forward"] for turn in turns], "of the pictures a second",
        ),
        result("plain loop", "", [count / turn["plain"] for turn in turns], "pictures a second"),
        result("first pass", "", [count / turn["pass"] for turn in turns], "pictures a second"),
        result("frozen layers alone", "", [turn["forward"] for turn in turns], "pictures a second"),
        result(f"{EPOCHS} epochs on cached features", "", [turn["epochs"] for turn in turns], "s"),
        result("conversion of the frozen layers, once", "", [turn["convert"] for turn in turns], "s"),
    ]  # fmt: skip


def accuracy(setting: Setting, seeds: int) -> list[dict[str, Any]]:
    """Test accuracy of the last layer, trained on torch's features (the plain loop's) and on the cache's.

    Without augmentation the plain loop sees the same features every epoch, so that they need be computed only once.
    Both are tested on torch's float32 features, as the model is served.
    """
    fast = setting.frozen()
    fast.choose(setting.tensors)
    plain = FeatureExtractor(setting.network, setting.precision, CPU, exact=False, images=0)
    exact = FeatureExtractor(setting.network, Precision("cpu", torch.float32), CPU, exact=True, images=0)

    test = _features(setting, exact, "test")
    results = []
    for name, layers in (("plain loop", plain), (f"feature cache, {fast.by}", fast)):
        train = _features(setting, layers, "train")
        found = [_trained(setting, [train], test, seed) for seed in range(seeds)]
        results.append(result(f"test accuracy, {name}", "not below the plain loop", found, "percent"))
    return results


def views(setting: Setting, seeds: int) -> list[dict[str, Any]]:
    """Test accuracy with 1, 2, 4 and EPOCHS views (a new one every epoch) of pictures that are cropped at random."""
    fast = setting.frozen()
    fast.choose(setting.tensors)
    test = _features(setting, fast, "test")
    plain = _features(setting, fast, "train")
    crops = [_features(setting, fast, "train", Augment("crop"), view) for view in range(EPOCHS)]
    cases = {"none": [plain], **{f"crop, {number} views": crops[:number] for number in (1, 2, 4, EPOCHS)}}
    return [
        result(f"test accuracy, augment {name}", "", [_trained(setting, c, test, s) for s in range(seeds)], "percent")
        for name, c in cases.items()
    ]


def _features(
    setting: Setting, layers: FeatureExtractor, split: str, augment: Augment | None = None, view: int = 0
) -> torch.Tensor:
    spec = setting.network.preprocessing
    pictures = ImageDataset(setting.data.splits, spec, augment, 0)
    items = [Item(split, image, (view,)) for image in range(len(setting.data.splits[split]))]
    batches = [items[first : first + layers.batch] for first in range(0, len(items), layers.batch)]
    loaded = loading.load(pictures, batches, setting.hp.workers, CPU)
    return torch.cat([layers(batch.pixels)[0].float() for batch in loaded])


def _trained(setting: Setting, train: list[torch.Tensor], test: torch.Tensor, seed: int) -> float:
    """`train` are the views, of which each epoch sees the next."""
    targets = {name: torch.as_tensor(setting.data.splits[name].targets) for name in ("train", "test")}
    torch.manual_seed(seed)
    layer = nn.Linear(test.shape[1], len(setting.data.classes))
    optimizer, loss = torch.optim.Adam(layer.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        view = train[epoch % len(train)]
        for indices in torch.randperm(len(view)).split(BATCH):
            optimizer.zero_grad()
            loss(layer(view[indices]), targets["train"][indices]).backward()
            optimizer.step()
    return 100 * float((layer(test).argmax(1) == targets["test"]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=existing, help="train, valid and test, a folder a class in each")
    parser.add_argument("--weights", type=existing, help="a state_dict file (default: a random backbone)")
    parser.add_argument(
        "--arch", default="resnet50", type=hyperparameters.architecture, help="of torchvision (default: %(default)s)"
    )
    parser.add_argument(
        "--pictures", type=natural, help="of training and validation, 0: all (600, or for accuracies 0)"
    )
    parser.add_argument("--repetitions", type=whole, default=3, help="(default: %(default)s)")
    parser.add_argument("--accuracy", action="store_true", help="accuracies in place of speed")
    parser.add_argument("--views", action="store_true", help="accuracies by the number of augmented views")
    parser.add_argument("--out", type=new_file, help="a JSON file for the results")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    ways = accuracy if options.accuracy else views if options.views else speed
    if ways is not speed and options.data is None:
        parser.error("accuracies want real pictures: --data DIR")
    count = (600 if ways is speed else 0) if options.pictures is None else options.pictures
    extractor.OPENVINO_IMAGES = 0  # some of the pictures stand for all of them, which are more
    with tempfile.TemporaryDirectory() as base:
        folder = options.data or make(Path(base) / "made")
        weights = options.weights or random_weights(options.arch, Path(base) / "random.pth")
        setting = Setting(read(folder, count, Path(base)), weights, options.arch)
        print(f"{setting.count} pictures, {torch.get_num_threads()} threads, {setting.precision.dtype}", flush=True)
        results = ways(setting, options.repetitions)
    for row in results:
        low, high = row["spread"]
        goal = f"  goal: {row['goal']}" if row["goal"] else ""
        print(f"{row['name']:58} {row['measured']:9.2f} {row['unit']} ({low:.2f} to {high:.2f}){goal}")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
