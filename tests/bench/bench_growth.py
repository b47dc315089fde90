"""Start-up and memory with 10 thousand, 100 thousand and a million images, of 20 and of 10,000 classes.

The trees are hard links to the images of the built-in sample, or to those of --images. Each is measured by a process of
its own: the listing and the check before the training, the network (ResNet18, all layers), and the first step on a
batch of 64 images that another process decodes. The memory is the resident set after the imports, after the listing
and the check, and in the first step; then what the decoding process holds for itself alone (its unique set size).
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_train.data import sample, splits
from scripts.dataset import check
from scripts.s3 import storage
from tests.bench.arguments import existing, new_file, whole

COUNTS, CLASSES = (10_000, 100_000, 1_000_000), (20, 10_000)
SHARES = {"train": 0.9, "valid": 0.05, "test": 0.05}
MOST_LINKS = 60_000  # ext4 has 65,000 for a file
MEGABYTE = 1e6


def links(images: list[Path], copies: Path) -> Iterator[Path]:
    """Yield files to link to: each of `images` in turn, and a new copy when one has many links."""
    for turn in itertools.count():
        paths = [copies / f"{turn}-{number}{path.suffix}" for number, path in enumerate(images)]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image.read_bytes())
        for _ in range(MOST_LINKS):
            yield from paths


def make(root: Path, images: list[Path], count: int, classes: int) -> None:
    """Make root/input/data/SPLIT/CLASS/NUMBER.jpg, `count` files in all."""
    (root / "copies").mkdir(parents=True)
    sources = links(images, root / "copies")
    for split, share in SHARES.items():
        folders = [root / "input" / "data" / split / f"class_{number:05}" for number in range(classes)]
        for folder in folders[: round(count * share)]:
            folder.mkdir(parents=True)
        for number, source in zip(range(round(count * share)), sources, strict=False):
            os.link(source, folders[number % classes] / f"image_{number:07}.jpg")


def training(root: Path) -> None:
    """Print the seconds of each phase of a job's start, and the megabytes that the process holds then, as JSON."""
    started = time.monotonic()
    import psutil
    import torch

    from container_train.compute.precision import Precision
    from container_train.compute.runtime import Runtime
    from container_train.data import dataset
    from container_train.features.sources import Source
    from container_train.hyperparameters import Hyperparameters
    from container_train.model import builder
    from container_train.paths import SageMakerPaths
    from container_train.signals import StopFlag

    device, found = torch.device("cpu"), {}

    def mark(name: str) -> None:
        nonlocal started
        process = psutil.Process()
        found[name] = {
            "seconds": time.monotonic() - started,
            "megabytes": process.memory_info().rss / MEGABYTE,
            "workers": sum(child.memory_full_info().uss for child in process.children()) / MEGABYTE,
        }
        started = time.monotonic()

    mark("imports")
    data = dataset.read(SageMakerPaths(root))
    mark("data")
    hp = Hyperparameters(
        arch="resnet18", weights="none", freeze_until="none", feature_cache="off", workers=1, amp="off", seed=0
    )
    network = builder.build("resnet18", len(data.classes), weights="none", weights_file=None, freeze_until="none")
    mark("model")
    source = Source(data, network, hp, Runtime(device, Precision.choose("off", device), StopFlag()))
    batches = source.training(0, 0)
    pixels, targets = next(batches)
    assert isinstance(pixels, torch.Tensor)  # from no cache
    logits = network.head(*source.extractor(pixels))
    torch.nn.functional.cross_entropy(logits, targets).backward()
    mark("first step")
    print(json.dumps(found))


def features(root: Path) -> None:
    """Print the seconds of the feature cache's parts, and the megabytes that each adds, as JSON.

    All is real but the images, of which there are the names, and the frozen layers: both would take hours. The features
    are 512 random numbers of 2 bytes an image, as ResNet18's in bfloat16. `root` is named COUNT-CLASSES.
    """
    import numpy as np
    import psutil
    import torch

    from container_train.compute.precision import Precision
    from container_train.compute.runtime import Runtime
    from container_train.data.dataset import Data
    from container_train.data.files import Files, Split
    from container_train.data.unreadable import Unreadable
    from container_train.features.cache import Cache
    from container_train.features.extractor import FeatureExtractor
    from container_train.features.files import Features
    from container_train.features.location import Store
    from container_train.features.sources import Source
    from container_train.hyperparameters import Hyperparameters
    from container_train.model import builder
    from container_train.signals import StopFlag

    def pixels(_cache: Cache, _split: str, _views: tuple[int, ...], batches: Sequence[range]) -> Iterator[torch.Tensor]:
        return (torch.empty(len(batch), 0) for batch in batches)

    def run(extractor: FeatureExtractor, batches: Iterable[torch.Tensor]) -> Iterator[Features]:
        numbers = torch.randn(extractor.batch, 512).to(torch.bfloat16)
        return ((numbers[: len(batch)],) for batch in batches)

    mock.patch.object(Cache, "_pixels", pixels).start()
    mock.patch.object(FeatureExtractor, "run", run).start()
    device, found = torch.device("cpu"), {}
    precision = Precision("cpu", torch.bfloat16)
    count, classes = map(int, root.name.split("-"))
    names = tuple(f"class_{number:05}" for number in range(classes))
    parts = {}
    for split, share in SHARES.items():
        targets = np.arange(round(count * share)) % classes
        files = Files(
            root, (f"{names[target]}/image_{number:07}.jpg" for number, target in enumerate(targets.tolist()))
        )
        parts[split] = Split(split, files, targets)
    data = Data(names, parts, {}, {}, root.name, (), Unreadable(parts, {}, 0))
    hp = Hyperparameters(arch="resnet18", feature_cache="on", workers=0, amp="off", seed=0)  # off: by torch alone
    # Nothing fits layers with weights to images first, and random ones do here.
    built = builder.build("resnet18", classes, weights="none", weights_file=None, freeze_until="backbone")
    network = replace(built, weights="random")
    started, before = time.monotonic(), psutil.Process().memory_info()

    def mark(name: str) -> None:
        nonlocal started
        now = psutil.Process().memory_info()
        own = now.rss - now.shared - (before.rss - before.shared)  # without the pages of the mapped files
        found[name] = {"seconds": time.monotonic() - started, "megabytes": own / MEGABYTE}
        started = time.monotonic()

    def source() -> Source:
        return Source(
            data, network, hp, Runtime(device, precision, StopFlag()), Store((root,), ((root, float("inf")),))
        )

    source()
    mark("first start: written")
    it = source()
    mark("second start: read")
    for _ in it.training(0, 0):
        pass
    mark("batches of an epoch")
    print(json.dumps(found))


def preparation(root: Path) -> None:
    """Print the seconds of the parts of prepare_data.py --s3 --dry-run, as JSON.

    They are the plan of the splits, the look at each file's header, and the names in S3.
    """
    found: dict[str, float] = {}
    folders = {"split already": root / "input" / "data", "not split": root / "input" / "data" / "train"}
    if len(list(next(folders["not split"].iterdir()).iterdir())) < len(SHARES):
        del folders["not split"]
    for name, folder in folders.items():
        times = [time.monotonic()]
        plan = splits.plan(folder)
        times.append(time.monotonic())
        readable = check.readable(plan, lambda _: None)
        times.append(time.monotonic())
        storage.items(readable)
        times.append(time.monotonic())
        parts = zip(("plan", "headers", "names"), itertools.pairwise(times), strict=True)
        found |= {f"{name}, {part}": after - before for part, (before, after) in parts}
    print(json.dumps(found))


def figure(name: str, goal: str, measured: float, unit: str) -> dict[str, Any]:
    value = round(measured, 1)
    return {"name": name, "goal": goal, "measured": value, "unit": unit, "spread": [value, value], "repetitions": 1}


def child(what: str, root: Path) -> dict[str, Any]:
    """Run one of this file's functions in a process of its own. Raises SystemExit where it fails."""
    command = [sys.executable, __file__, "--child", what, str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench_growth: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=whole, nargs="+", default=COUNTS, help="numbers of images (%(default)s)")
    parser.add_argument("--classes", type=whole, nargs="+", default=CLASSES, help="numbers of classes (%(default)s)")
    parser.add_argument("--images", type=existing, help="folder of images to link to (default: those of the sample)")
    parser.add_argument("--folder", type=existing, help="where the trees are made (default: a temporary folder)")
    parser.add_argument("--features", action="store_true", help="measure the feature cache as well: 1 GB a million")
    parser.add_argument("--scripts", action="store_true", help="measure prepare_data.py's parts as well")
    parser.add_argument("--out", type=new_file, help="a JSON file for the figures")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, root = options.child
        {"training": training, "features": features, "preparation": preparation}[what](Path(root))
        return
    figures = []
    with tempfile.TemporaryDirectory(prefix="byoc-growth-", dir=options.folder) as folder:
        if not options.images:
            sample.write(Path(folder, "sample"))
        images = sorted(path for path in (options.images or Path(folder, "sample")).rglob("*") if path.is_file())
        print(f"{'':17} {'seconds':>27}   megabytes")
        heads = [f"{head:>6}" for head in ("making", "data", "model", "step", "before", "data", "step", "worker")]
        print(f"{'images':>9} {'classes':>7} {' '.join(heads[:4])}   {' '.join(heads[4:])}", flush=True)
        for count, classes in itertools.product(options.counts, options.classes):
            root, started = Path(folder, f"{count}-{classes}"), time.monotonic()
            make(root, images, count, classes)
            made = time.monotonic() - started
            found = child("training", root)
            phases = [found[name] for name in ("imports", "data", "model", "first step")]
            numbers = [made, *(phase["seconds"] for phase in phases[1:])]
            sizes = [*(phases[index]["megabytes"] for index in (0, 1, 3)), phases[3]["workers"]]
            print(f"{count:9} {classes:7} {' '.join(f'{n:6.1f}' for n in numbers)}  "
                  f" {' '.join(f'{n:6.0f}' for n in sizes)}", flush=True)  # fmt: skip
            what = f"growth: {count} images, {classes} classes"
            figures += [
                figure(f"{what}: seconds to the first step", "60 s", sum(numbers[1:]), "s"),
                figure(f"{what}: memory of the images", "1000 MB", sizes[1] - sizes[0] + sizes[3], "MB"),
            ]
            if options.features:
                for name, part in child("features", root).items():
                    words = f"{part['seconds']:.1f} s, {part['megabytes']:.0f} MB"
                    print(f"{'feature cache':>17} {name}: {words}", flush=True)
                    figures.append(figure(f"{what}: feature cache, {name}", "1000 MB", part["megabytes"], "MB"))
            if options.scripts:
                for name, seconds in child("preparation", root).items():
                    print(f"{'prepare_data.py':>17} {name}: {seconds:.1f} s", flush=True)
            shutil.rmtree(root)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
