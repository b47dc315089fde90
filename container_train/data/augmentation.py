"""The random part of training's view of an image."""

import hashlib
import inspect
import sys
from dataclasses import replace

import torchvision
from PIL import Image
from torchvision.transforms import v2

from container_serve.preprocess import Preprocessing

MODES = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
}


class Augmentation:
    """A random change of decoded images, drawn from torch's global generator: `kind` is flip or crop.

    `spec` is the preprocessing that has to follow. A random crop has the network's size already: resizing it once more
    and cropping its centre would blur every image and cut its margin off.
    """

    def __init__(self, kind: str, spec: Preprocessing) -> None:
        self.spec = spec
        self.transform: v2.Transform = v2.RandomHorizontalFlip()
        if kind == "crop":
            self.spec = replace(spec, resize=spec.crop)
            crop = v2.RandomResizedCrop(spec.crop, interpolation=MODES[spec.interpolation], antialias=True)
            self.transform = v2.Compose([crop, self.transform])

    def __call__(self, image: Image.Image) -> Image.Image:
        changed: Image.Image = self.transform(image)
        return changed


def version() -> str:
    """Return what decides the views besides their seeds: features of another version's views are not the same."""
    source = inspect.getsource(sys.modules[__name__])
    return f"{hashlib.sha256(source.encode()).hexdigest()[:16]}, torchvision {torchvision.__version__}"
