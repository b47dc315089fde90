"""Near-duplicates of real photographs are found, and different photographs are not taken for one."""

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from container_train.data import duplicates, sample
from container_train.data.duplicates import perceptual_hash
from container_train.data.files import Files, Split


def hashed(splits: Mapping[str, Mapping[str, bytes]]) -> dict[str, Split]:
    """By name: split/class/file."""
    classes = sorted({name.split("/")[1] for images in splits.values() for name in images})
    return {
        split: Split(
            split,
            Files(Path(split), [name.removeprefix(f"{split}/") for name in images]),
            np.array([classes.index(name.split("/")[1]) for name in images], dtype=np.int64),
            b"".join(images.values()),
        )
        for split, images in splits.items()
    }


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
    train = {f"train/{name}/1.jpg": perceptual_hash(image) for name, image in images.items()}
    test = {f"test/{name}/2.jpg": perceptual_hash(CHANGES[change](images[name])) for name in names[:2]}
    test["test/other/3.jpg"] = perceptual_hash(photograph("coins"))
    (leak,) = duplicates.between(hashed({"train": train, "valid": {}, "test": test}))
    assert (leak.split, leak.of, leak.count, leak.total) == ("test", "train", 2, 3)
    assert leak.examples == (("test/astronaut/2.jpg", "train/astronaut/1.jpg"), ("test/cat/2.jpg", "train/cat/1.jpg"))


def test_the_sample_has_none(tmp_path: Path) -> None:
    """Its images are cut out of the same few photographs, from different places."""
    sample.write(tmp_path)
    splits: dict[str, dict[str, bytes]] = {}
    for path in sorted(tmp_path.glob("*/*/*")):
        with Image.open(path) as image:
            splits.setdefault(path.parts[-3], {})[str(path.relative_to(tmp_path))] = perceptual_hash(image)
    assert len(splits["train"]) == 240
    assert duplicates.between(hashed(splits)) == []


def test_images_that_are_all_alike_are_different() -> None:
    """Photographs of parts in one place: most of their bits are the same, and a copy has nearly all of them."""
    dice = np.random.default_rng(0)
    place = photograph("cat").resize((160, 120))
    splits: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    for number in range(120):
        part = Image.fromarray(dice.integers(0, 256, (8, 8), dtype=np.uint8)).resize((70, 60), Image.Resampling.NEAREST)
        image = place.copy()
        image.paste(part, (45, 30))
        split = "test" if number >= 90 else "train"
        splits[split][f"{split}/{number % 2}/{number}"] = perceptual_hash(image)
        if number == 7:
            splits["test"]["test/1/copy"] = perceptual_hash(compressed(image))
    splits["train"]["train/0/plain"] = splits["test"]["test/1/plain"] = perceptual_hash(Image.new("RGB", (50, 50)))
    (leak,) = duplicates.between(hashed(splits))
    assert leak.examples == (("test/1/copy", "train/1/7"),)
    bits = np.frombuffer(hashed(splits)["train"].hashes, np.uint64).reshape(-1, 4)
    assert np.bitwise_count(bits[0] ^ bits[1]).sum() < duplicates.MOST_BITS


def test_eight_thousand_images_are_compared_in_a_moment() -> None:
    dice = np.random.default_rng(0)
    made = [row.tobytes() for row in dice.integers(0, 256, (8000, 32), dtype=np.uint8)]
    splits = {
        "train": {f"train/a/{number}": text for number, text in enumerate(made[:6400])},
        "valid": {f"valid/b/{number}": text for number, text in enumerate(made[6400:7200])},
        "test": {f"test/c/{number}": text for number, text in enumerate([*made[7200:], made[5], made[6500]])},
    }
    started = time.process_time()
    leaks = duplicates.between(hashed(splits))
    assert [(leak.split, leak.of, leak.examples) for leak in leaks] == [
        ("test", "train", (("test/c/800", "train/a/5"),)),
        ("test", "valid", (("test/c/801", "valid/b/100"),)),
    ]
    assert time.process_time() - started < 20  # 0.5 s of a processor
