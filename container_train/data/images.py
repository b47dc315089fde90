"""The images of a job as training sees them: decoded to pixels by other processes, normalised on the device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from container_serve.errors import RequestError
from container_serve.image import decode
from container_serve.preprocess import Preprocessing, read, to_pixels
from container_train.data.augmentation import Augment, Augmentation, Pixels
from container_train.data.files import Split

AUGMENTED = "train"  # the split whose images are changed at random


class Item(NamedTuple):
    """One image of a split, and the views of it that are wanted; without an augmentation all views are equal."""

    split: str
    image: int  # its number in the split
    views: tuple[int, ...] = (0,)


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Pixels uint8 (views, crop, crop, 3) of an Item, those that the server computes, and its target.

    An image that cannot be read is black, and its target is -1 minus its number in the split.

    With an augmentation, the view of an image depends on (seed, view, index) alone, not on the order or the number of
    decoding processes, so that a resumed epoch sees what an uninterrupted one would have seen. An image is decoded once
    for all its views.
    """

    def __init__(
        self, splits: Mapping[str, Split], spec: Preprocessing, augment: Augment | None = None, seed: int = 0
    ) -> None:
        self.splits, self.spec, self.seed = splits, spec, seed
        self.augment = Augmentation(augment, spec) if augment else None

    def __getitem__(self, item: Item) -> tuple[torch.Tensor, int]:
        split = self.splits[item.split]
        path = split.paths[item.image]
        augment = self.augment if item.split == AUGMENTED else None
        try:
            body = path.read_bytes()
            image = read(body, self.spec) if augment is None else decode(body)
        except (OSError, RequestError):
            side = self.spec.crop
            return torch.zeros(len(item.views), side, side, 3, dtype=torch.uint8), -1 - item.image
        if augment is None:
            pixels = np.stack([to_pixels(image, self.spec)] * len(item.views))
        else:
            pixels = np.stack([self._view(augment, image, view, item.image) for view in item.views])
        return torch.from_numpy(pixels), int(split.targets[item.image])

    def _view(self, augment: Augmentation, image: Image.Image, view: int, index: int) -> Pixels:
        with seeded(hash((self.seed, view, index))):
            return augment.erase(to_pixels(augment(image), augment.spec))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global generator with this seed, and leave it as it was.

    torch.manual_seed and fork_rng see to the generators of all devices: a twentieth of the time of an image.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


class Normalisation:
    """The server's normalisation for batches, on a device: float32 (N, 3, side, side) from uint8 of the same shape.

    Its operations are those of `container_serve.preprocess.normalise`, in the same order, and on a CPU give the same
    bits.
    """

    def __init__(self, spec: Preprocessing, device: torch.device) -> None:
        def constant(*values: float) -> torch.Tensor:
            # A tensor: by a number, CUDA would multiply with its reciprocal.
            return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1).to(device)

        self.scale, self.mean, self.std = constant(255.0), constant(*spec.mean), constant(*spec.std)

    def __call__(self, pixels: torch.Tensor, layout: torch.memory_format = torch.channels_last) -> torch.Tensor:
        """`pixels` on the device."""
        images = pixels.to(torch.float32, memory_format=layout)
        return images.div_(self.scale).sub_(self.mean).div_(self.std)


def first_images(splits: Mapping[str, Split], spec: Preprocessing, count: int) -> torch.Tensor:
    """Return the first `count` training images as they are decoded: pixels uint8 (count, 3, side, side)."""
    images = ImageDataset(splits, spec)
    items = [Item("train", index) for index in range(min(len(splits["train"]), count))]
    return torch.cat([images[item][0] for item in items]).permute(0, 3, 1, 2)
