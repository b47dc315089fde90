"""Start-up and memory with 10 thousand, 100 thousand and a million images, of 20 and of 10,000 classes.

The trees are hard links to the images of the built-in sample, or to those of --images. Each is measured by a process of
its own: the listing and the check before the training, the network (ResNet18, all layers), and the first step on a
batch of 64 images that another process decodes. The memory is the resident set after the imports, after the listing
and the check, and in the first step; then what the decoding process holds for itself alone (its unique set size).
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, os.environ.get("PYTHONPATH", str(ROOT)))
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


def measure(root: Path) -> None:
    """Print the seconds of each phase of a job's start, and the megabytes that the process holds then, as JSON."""
    started = time.monotonic()
    import psutil
    import torch

    from container_train.data import dataset
    from container_train.features.sources import Source
    from container_train.hyperparameters import Hyperparameters
    from container_train.model import builder
    from container_train.paths import SageMakerPaths
    from container_train.signals import StopFlag
    from container_train.training.precision import Precision

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
    source = Source(data, network, hp, device, Precision.choose("off", device), StopFlag())
    batches = source.training(0, 0)
    inputs, targets = next(batches)
    torch.nn.functional.cross_entropy(network.head(*inputs), targets).backward()
    mark("first step")
    found["images"] = {"seconds": sum(map(len, data.splits.values())), "megabytes": 0}
    print(json.dumps(found))


def scripts(root: Path) -> None:
    """Print the seconds that the scripts need to plan, check and name the images of a folder, as JSON."""
    from container_train.data import splits
    from scripts.dataset import check
    from scripts.s3 import storage

    found = {}
    folders = {"split already": root / "input" / "data", "not split": root / "input" / "data" / "train"}
    if len(list(next(folders["not split"].iterdir()).iterdir())) < len(SHARES):
        del folders["not split"]
    for name, folder in folders.items():
        started = time.monotonic()
        plan = splits.plan(folder)
        planned = time.monotonic()
        readable = check.readable(plan, lambda _: None)
        checked = time.monotonic()
        storage.items(readable)
        found[name] = {
            "plan": planned - started, "check": checked - planned, "items": time.monotonic() - checked,
        }  # fmt: skip
    print(json.dumps(found))


def child(what: str, root: Path) -> dict[str, Any]:
    """Run one of this file's functions in a process of its own. Raises SystemExit where it fails."""
    command = [sys.executable, __file__, f"--{what}", str(root)]
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench_growth: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of images (%(default)s)")
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES, help="numbers of classes (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder of images to link to (default: those of the sample)")
    parser.add_argument("--folder", type=Path, help="where the trees are made (default: a temporary folder)")
    parser.add_argument("--with-scripts", action="store_true", help="measure the scripts as well")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scripts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure or options.scripts:
        measure(options.measure) if options.measure else scripts(options.scripts)
        return
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byoc-growth-", dir=options.folder)))
        if not options.images:
            from container_train.data import sample

            sample.write(work / "sample")
        images = sorted(path for path in (options.images or work / "sample").rglob("*") if path.is_file())
        print(f"{'images':>9} {'classes':>7} {'made':>6} {'data':>6} {'model':>6} {'step':>6} {'before':>7} {'data':>6}"
              f" {'step':>7} {'worker':>7}  (seconds, then megabytes)", flush=True)  # fmt: skip
        for count, classes in itertools.product(options.counts, options.classes):
            root, started = work / f"{count}-{classes}", time.monotonic()
            make(root, images, count, classes)
            made = time.monotonic() - started
            found = child("measure", root)
            seconds = [found[name]["seconds"] for name in ("data", "model", "first step")]
            memory = [found[name]["megabytes"] for name in ("imports", "data", "first step")]
            cells = " ".join(f"{number:6.1f}" for number in [made, *seconds])
            sizes = " ".join(f"{number:7.0f}" for number in [*memory, found["first step"]["workers"]])
            print(f"{count:9} {classes:7} {cells} {sizes}", flush=True)
            if options.with_scripts:
                print(f"{'scripts':>17} {json.dumps(child('scripts', root))}", flush=True)
            subprocess.run(["rm", "-r", str(root)], check=True)


if __name__ == "__main__":
    main()
