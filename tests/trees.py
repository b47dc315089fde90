"""Small trees of files: /opt/ml with real picture files for the training tests, and cgroups."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"01.red": (200, 40, 40), "02.green": (40, 180, 60), "10.blue": (50, 60, 200)}
LABELS = ("red", "green", "blue")
# An architecture and a size that train in a second; everything else is as for ResNet50.
SMALL = {
    "arch": "mobilenet_v3_small",
    "image-size": "64",
    "weights": "none",
    "workers": "0",
    "batch-size": "8",
    "amp": "off",
    # A second for each job that is not about them.
    "debug": "off",
    "profile-interval": "0",
    "precision": "fp32",
}


def picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A noisy JPEG of one colour: classes that any network can tell apart."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(colour, 40, size=(72, 80, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def fill(root: Path, counts: Mapping[str, int] | None = None) -> Path:
    """train/valid/test class folders below `root`."""
    for number, (split, count) in enumerate((counts or {"train": 10, "valid": 4, "test": 4}).items()):
        for index, (name, colour) in enumerate(COLOURS.items()):
            for k in range(count):
                picture(root / split / name / f"{k:03}.jpg", colour, seed=1000 * number + 100 * index + k)
    return root


def tree(
    base: Path, hyperparameters: Mapping[str, str] | None = None, pictures: Mapping[str, int] | None = None
) -> Path:
    """A whole tree below `base`, configured as the platform does; hyperparameters on top of SMALL."""
    fill(base / "input" / "data", pictures)
    configure(base, {**SMALL, **(hyperparameters or {})})
    return base


def configure(base: Path, hyperparameters: Mapping[str, str]) -> None:
    config = base / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    host = {"current_host": "localhost", "hosts": ["localhost"], "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(host))
    channels = {p.name: {"TrainingInputMode": "File"} for p in (base / "input" / "data").iterdir()}
    (config / "inputdataconfig.json").write_text(json.dumps(channels))


def cgroup(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write files below root/cgroup, and the process's `own` groups as in /proc; return both paths."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "cgroup", root / "own"
