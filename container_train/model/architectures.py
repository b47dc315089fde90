"""The architectures that torchvision has, their weights and modules, known without importing it; those of timm."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from container_train.errors import TrainError

FILE = Path(__file__).with_suffix(".json")
HUB = "https://download.pytorch.org/models/"
SMALLEST = 32  # pixels: most networks halve the side five times
TIMM = "timm/"  # timm/NAME or timm/NAME.TAG: which there are, only timm knows
_TIMM = re.compile(r"timm/[a-z0-9_]+(\.[a-z0-9_]+)?")


@dataclass(frozen=True)
class Architecture:
    """`weights`: the file at HUB by torchvision's name; the first is DEFAULT. `modules`: those of the network's own
    modules up to which it can be frozen, in order. `crop`: the side of the images, in pixels.
    """

    weights: dict[str, str]
    modules: tuple[str, ...]
    crop: int


@functools.cache
def known() -> dict[str, Architecture]:
    """Return all architectures by name."""
    content = json.loads(FILE.read_text())
    return {
        name: Architecture(entry["weights"], tuple(entry["modules"]), entry["crop"]) for name, entry in content.items()
    }


def is_timm(arch: str) -> bool:
    """Return True for what may be the name of a model of timm."""
    return _TIMM.fullmatch(arch) is not None


def weights_url(arch: str, weights: str) -> str | None:
    """Return the URL of these weights; None for `none`. Imports timm for its models; TrainError for unknown ones."""
    if is_timm(arch):
        from container_train.model import timm_models

        timm_models.configuration(arch)
        return None if weights.lower() == "none" else timm_models.url(arch)
    if weights.lower() == "none":
        return None
    files = known()[arch].weights
    return HUB + (next(iter(files.values())) if weights == "DEFAULT" else files[weights])


def check(arch: str, weights: str, freeze_until: str, resize_size: int, image_size: int) -> None:
    """Raise TrainError for values that cannot be combined. Nested modules are left to the builder."""
    entry = None if is_timm(arch) else known()[arch]
    if weights.lower() != "none" and weights not in ("DEFAULT", *(entry.weights if entry else ())):
        others = f"or one of {', '.join(entry.weights)} for {arch}" if entry else f"(others: --arch {TIMM}NAME.TAG)"
        raise TrainError(
            f"hyperparameter weights has value {weights!r}: expected DEFAULT, none {others}; a file is given as the"
            " channel weights (scripts: --weights FILE)"
        )
    if entry and freeze_until not in ("backbone", "none", *entry.modules) and "." not in freeze_until:
        raise TrainError(
            f"hyperparameter freeze-until has value {freeze_until!r}: expected backbone, none or a module of {arch}"
            f" before its last layer, such as {', '.join(entry.modules)}"
        )
    if 0 < image_size < SMALLEST:
        raise TrainError(
            f"hyperparameter image-size has value {image_size}: expected at least {SMALLEST} pixels, or 0, which is the"
            " size that the weights were trained with"
        )
    crop = image_size or (entry.crop if entry else 0)
    if resize_size and resize_size < crop:
        raise TrainError(
            f"hyperparameter resize-size has value {resize_size}: expected at least the image-size, {crop}"
        )
