"""The built-in sample: crops of photographs that scikit-image's wheel ships, one class per photograph.

A photograph is cut into a grid of cells, and every cell belongs to one split, so that no pixel of a test image
was seen in training. Nothing is downloaded: scikit-image's own loader, which would fetch files, is not used.
"""

import importlib.util
import random
from itertools import pairwise
from pathlib import Path

from PIL import Image

from container_train.errors import DataError

# A class and its file in skimage/data. (motorcycle_right is motorcycle_left seen from beside it.)
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
COUNTS = {"train": 24, "valid": 6, "test": 6}  # images per class
CELL_SHARES = {"valid": 1 / 6, "test": 1 / 6}  # of a photograph's cells; the rest is for training
CELL = 96  # least side of a cell, pixels
SMALLEST_CROP = 0.7  # of the cell's shorter side
QUALITY = 92


def folder_of_photographs() -> Path:
    """Return the folder of the wheel's photographs, found without importing the package (which takes seconds)."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("scikit-image, whose photographs are the sample, is not installed: run local_test/setup.sh")
    return Path(spec.submodule_search_locations[0]) / "data"


def crops(width: int, height: int, name: str, seed: int) -> dict[str, list[tuple[int, int, int, int]]]:
    """COUNTS square boxes (left, top, right, bottom) for every split, each inside one of the split's cells."""
    columns, rows = width // CELL, height // CELL
    xs = [column * width // columns for column in range(columns + 1)]
    ys = [row * height // rows for row in range(rows + 1)]
    train = [(left, top, right, bottom) for top, bottom in pairwise(ys) for left, right in pairwise(xs)]
    random.Random(f"cells {seed} {name}").shuffle(train)
    cells = {}
    for split, share in CELL_SHARES.items():
        count = max(1, round(len(train) * share)) if len(train) < 60 else COUNTS[split]
        cells[split], train = train[:count], train[count:]
    chosen: dict[str, list[tuple[int, int, int, int]]] = {}
    for split, boxes in ({"train": train} | cells).items():
        dice = random.Random(f"crops {seed} {name} {split}")
        chosen[split] = []
        for number in range(COUNTS[split]):
            left, top, right, bottom = boxes[number % len(boxes)]
            side = min(right - left, bottom - top)
            side = dice.randint(round(side * SMALLEST_CROP), side)
            x, y = dice.randint(left, right - side), dice.randint(top, bottom - side)
            chosen[split].append((x, y, x + side, y + side))
    return chosen


def write(target: Path, seed: int = 0) -> None:
    """Make target/SPLIT/NNN.class/NNNN.jpg; the same seed gives the same images."""
    photographs = folder_of_photographs()
    for index, (name, file) in enumerate(sorted(PHOTOGRAPHS.items()), start=1):
        try:
            with Image.open(photographs / file) as opened:
                picture = opened.convert("RGB")
        except OSError as error:
            raise DataError(f"{photographs / file}: {error}: remove .venv and call this again") from None
        for split, boxes in crops(*picture.size, name, seed).items():
            folder = target / split / f"{index:03d}.{name}"
            folder.mkdir(parents=True)
            for number, box in enumerate(boxes, start=1):
                picture.crop(box).save(folder / f"{number:04d}.jpg", quality=QUALITY)
