"""Near-duplicates of real photographs are found, and different photographs are not taken for one."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from container_train import duplicates
from container_train.duplicates import perceptual_hash
from local_test import sample


def photograph(name: str) -> Image.Image:
    with Image.open(sample.folder_of_photographs() / sample.PHOTOGRAPHS[name]) as opened:
        return opened.convert("RGB")


def compressed(image: Image.Image) -> Image.Image:
    body = io.BytesIO()
    image.save(body, "JPEG", quality=40)
    return Image.open(body)


def cut(image: Image.Image) -> Image.Image:
    x, y = image.width // 60, image.height // 60
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "compressed": compressed,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "cut": cut,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_a_photograph_is_found(change: str) -> None:
    names = ("astronaut", "cat", "coffee", "motorcycle", "rocket")
    images = {name: photograph(name) for name in names}
    train = {f"train/{name}.jpg": perceptual_hash(image) for name, image in images.items()}
    test = {f"test/{name}.jpg": perceptual_hash(CHANGES[change](images[name])) for name in names[:2]}
    test["test/other.jpg"] = perceptual_hash(photograph("coins"))
    (leak,) = duplicates.between({"train": train, "valid": {}, "test": test})
    assert (leak.split, leak.of, leak.count, leak.total) == ("test", "train", 2, 3)
    assert leak.examples == (("test/astronaut.jpg", "train/astronaut.jpg"), ("test/cat.jpg", "train/cat.jpg"))


def test_the_sample_has_none(tmp_path: Path) -> None:
    """Its images are cut out of the same few photographs, from different places."""
    sample.write(tmp_path)
    splits: dict[str, dict[str, str]] = {}
    for path in sorted(tmp_path.glob("*/*/*")):
        with Image.open(path) as image:
            splits.setdefault(path.parts[-3], {})[str(path)] = perceptual_hash(image)
    assert len(splits["train"]) == 240
    assert duplicates.between(splits) == []


def test_different_things_on_white_are_different() -> None:
    """Most of their bits are the same: those of the background, which say nothing."""
    dice = np.random.default_rng(0)
    splits: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for number in range(200):
        image = Image.new("RGB", (120, 120), "white")
        x, y, width, height = dice.integers(20, 60, 4).tolist()
        if number >= 150:
            ImageDraw.Draw(image).line((x, y, x + width, y + height), fill="black", width=5)
        else:
            ImageDraw.Draw(image).ellipse((x, y, x + width, y + height), fill="black")
        splits["test" if number >= 150 else "train"][str(number)] = perceptual_hash(image)
    splits["train"]["plain"] = splits["test"]["plain"] = perceptual_hash(Image.new("RGB", (50, 50), "white"))
    assert duplicates.between(splits) == []


def test_eight_thousand_images_are_compared_in_a_moment() -> None:
    dice = np.random.default_rng(0)
    made = [row.tobytes().hex() for row in dice.integers(0, 256, (8000, 32), dtype=np.uint8)]
    splits = {
        "train": {f"a{number}": text for number, text in enumerate(made[:6400])},
        "valid": {f"b{number}": text for number, text in enumerate(made[6400:7200])},
        "test": {f"c{number}": text for number, text in enumerate([*made[7200:], made[5], made[6500]])},
    }
    started = time.process_time()
    leaks = duplicates.between(splits)
    assert [(leak.split, leak.of, leak.examples) for leak in leaks] == [
        ("test", "train", (("c800", "a5"),)),
        ("test", "valid", (("c801", "b100"),)),
    ]
    assert time.process_time() - started < 20  # 0.5 s of a processor
