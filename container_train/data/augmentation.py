"""The random part of training's view of an image."""

import hashlib
import inspect
import sys
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from container_serve.preprocess import Preprocessing
from container_train.hyperparameters import Hyperparameters

MODES = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
}
Pixels: TypeAlias = npt.NDArray[np.uint8]
LEAST_AREA = 0.08  # of the image, that a random crop takes by default


@dataclass(frozen=True)
class Augment:
    """Random changes of an image: `kind` none, flip, crop or trivial, and a rectangle erased with a probability."""

    kind: str = "none"
    crop_scale: float = LEAST_AREA
    erasing: float = 0.0

    @classmethod
    def of(cls, hp: Hyperparameters) -> "Augment":
        return cls(hp.augment, hp.crop_scale, hp.random_erasing)

    def __bool__(self) -> bool:
        return self.kind != "none" or self.erasing > 0

    def __str__(self) -> str:
        crop = f" from {self.crop_scale:g}" if self.kind in ("crop", "trivial") else ""
        return f"{self.kind}{crop}" + (f", erasing {self.erasing:g}" if self.erasing else "")


class Augmentation:
    """Applies `augment` to decoded images, and to their pixels, drawn from torch's global generator.

    `spec` is the preprocessing that has to follow. A random crop has the network's size already: resizing it again
    and cropping its centre would blur every image and cut its margin off.
    """

    def __init__(self, augment: Augment, spec: Preprocessing) -> None:
        self.spec = spec
        steps: list[v2.Transform] = []
        if augment.kind in ("crop", "trivial"):
            self.spec = replace(spec, resize=spec.crop)
            scale, mode = (augment.crop_scale, 1.0), MODES[spec.interpolation]
            steps.append(v2.RandomResizedCrop(spec.crop, scale=scale, interpolation=mode, antialias=True))
        if augment.kind != "none":
            steps.append(v2.RandomHorizontalFlip())
        if augment.kind == "trivial":
            steps.append(v2.TrivialAugmentWide())
        self.transform = v2.Compose(steps) if steps else None
        grey = [round(255 * value) for value in spec.mean]  # 0 after the normalisation
        self.erasing = v2.RandomErasing(augment.erasing, value=grey) if augment.erasing else None

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if self.transform is None else cast(Image.Image, self.transform(image))

    def erase(self, pixels: Pixels) -> Pixels:
        """Return pixels uint8 (crop, crop, 3) with a rectangle erased, or as they are."""
        if self.erasing is None:
            return pixels
        erased: torch.Tensor = self.erasing(torch.from_numpy(pixels).permute(2, 0, 1))
        return cast(Pixels, erased.permute(1, 2, 0).numpy())


def version() -> str:
    """Return what decides the views besides their seeds: features of another version's views are not the same."""
    source = inspect.getsource(sys.modules[__name__])
    return f"{hashlib.sha256(source.encode()).hexdigest()[:16]}, torchvision {torchvision.__version__}"
