"""The network: any architecture of torchvision or timm with a new last layer, frozen up to a named module."""

import logging
import math
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import InterpolationMode

from container_serve.preprocess import MAX_SIDE, Preprocessing
from container_train.errors import TrainError
from container_train.model import timm_models
from container_train.model.architectures import is_timm
from container_train.model.cut import cut
from container_train.model.weights import find, load

log = logging.getLogger(__name__)

INTERPOLATIONS = {
    InterpolationMode.NEAREST: "nearest",
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}


@dataclass(frozen=True)
class Network:
    """The whole model, and its parts if it can be cut: model(x) == head(*backbone(x)), backbone frozen.

    `new_layer`: the tensors whose shape depends on the number of classes, by name.
    """

    model: nn.Module
    arch: str
    preprocessing: Preprocessing
    weights: str
    backbone: fx.GraphModule | None
    head: nn.Module
    new_layer: frozenset[str]
    freeze_statistics: bool = False  # also those of batch norm layers that are trained

    def train_mode(self) -> None:
        """Set the trained layers to training mode; frozen ones keep their batch statistics."""
        self.model.eval()
        self.head.train()
        for module in self.head.modules():
            own = list(module.parameters(recurse=False))
            untrained = own and not any(parameter.requires_grad for parameter in own)
            if untrained or (self.freeze_statistics and isinstance(module, _BatchNorm)):
                module.eval()

    def eval_mode(self) -> None:
        self.model.eval()
        self.head.eval()

    def to(self, device: torch.device) -> None:
        """Move all parts; channels last is the faster layout for convolutions on CPU and GPU alike."""
        parts: list[Any] = [self.model, self.backbone, self.head]  # torch's stubs do not know memory_format here
        for part in filter(None, parts):
            part.to(device, memory_format=torch.channels_last)

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def __str__(self) -> str:
        trained, every = (sum(p.numel() for p in of) for of in (self.trainable(), self.model.parameters()))
        once = "nothing to cache" if self.backbone is None else "frozen layers run once per image if they can be cached"
        return f"{self.arch}, weights {self.weights}, {trained} of {every} parameters are trained, {once}"


def build(
    arch: str,
    classes: int,
    *,
    weights: str,
    weights_file: Path | None,
    freeze_until: str,
    resize_size: int = 0,
    image_size: int = 0,
    seed: int = 0,
    freeze_statistics: bool = False,
) -> Network:
    """Build the network on the CPU. `weights_file` takes precedence over `weights`. Raises TrainError."""
    torch.manual_seed(seed)
    preprocessing = preprocessing_of(arch, resize_size, image_size)
    origin, state = find(arch, weights, weights_file)
    model = bare(arch, classes, pretrained=state is not None, side=preprocessing.crop)
    new_layer = last_layer(arch, classes)
    if state is not None:
        load(model, state, arch, origin, new_layer, side=preprocessing.crop)
    _freeze(model, arch, freeze_until, new_layer)
    model.eval()
    _try(model, arch, preprocessing.crop)
    network = Network(model, arch, preprocessing, origin, None, model, frozenset(new_layer), freeze_statistics)
    return _cut(network)


def refrozen(network: Network, until: str) -> Network:
    """Return the network with its weights as they are, frozen up to the module `until`, on the CPU."""
    _freeze(network.model.cpu(), network.arch, until, network.new_layer)
    return _cut(network)


def _cut(network: Network) -> Network:
    backbone, head = cut(network.model, network.arch, network.preprocessing.crop, network.new_layer)
    return replace(network, backbone=backbone, head=head)


def bare(arch: str, classes: int, pretrained: bool = False, side: int = 0) -> nn.Module:
    """Build the network with random weights; some of timm's are for images of `side` pixels only (0: its own)."""
    if is_timm(arch):
        try:
            return timm_models.bare(arch, classes, side)
        except (AssertionError, ValueError) as error:
            raise _wrong_side(arch, side, error) from None
    # Auxiliary heads only serve training from scratch; their weights in a file are ignored.
    options: dict[str, Any] = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    if options:
        options |= {"transform_input": pretrained, "init_weights": not pretrained}
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=classes, **options)
    return model


def last_layer(arch: str, classes: int) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes: the new last layer."""
    ours, other = (_shapes(arch, number).state_dict() for number in (classes, classes + 1))
    return {name for name in ours if ours[name].shape != other[name].shape}


def _shapes(arch: str, classes: int) -> nn.Module:
    """Build the network without numbers, which takes no memory."""
    try:
        with torch.device("meta"):
            return bare(arch, classes, pretrained=True)
    except (NotImplementedError, RuntimeError):  # regnet computes its widths with tensors
        return bare(arch, classes, pretrained=True)


def freezable(arch: str) -> list[str]:
    """List the modules up to which the network can be frozen: those with parameters that end before the last layer."""
    model, new_layer = _shapes(arch, 2), last_layer(arch, 2)
    names = [name for name, _ in model.named_parameters()]
    first = min(index for index, name in enumerate(names) if name in new_layer)
    allowed = {tuple(name.split(".")[:depth]) for name in names[:first] for depth in range(1, name.count(".") + 1)}
    allowed -= {tuple(name.split(".")[:depth]) for name in names[first:] for depth in range(1, name.count(".") + 1)}
    return sorted(map(".".join, allowed), key=[name for name, _ in model.named_modules()].index)


def _freeze(model: nn.Module, arch: str, until: str, new_layer: Set[str]) -> None:
    """Freeze the parameters up to and including the module `until`. Raises TrainError for one of the new layer."""
    names = [name for name, _ in model.named_parameters()]
    last = max((index for index, name in enumerate(names) if name.startswith(f"{until}.")), default=-1)
    frozen = {"none": set[str](), "backbone": set(names) - new_layer}.get(until, set(names[: last + 1]))
    if until != "none" and (not frozen or frozen & new_layer):
        raise TrainError(
            f"hyperparameter freeze-until has value {until!r}: expected backbone, none or a module with parameters"
            f" before the last layer, such as {', '.join(name for name in freezable(arch) if '.' not in name)}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in frozen


def preprocessing_of(arch: str, resize_size: int, image_size: int) -> Preprocessing:
    """Return the preprocessing of the architecture's newest ImageNet weights, with the sizes that the job gives."""
    if is_timm(arch):
        images = timm_models.presets(arch)
        crop = image_size or images["input_size"][1]
        # A few were evaluated on images with a black margin (crop_pct above 1).
        resize, mean, std = max(math.floor(crop / images["crop_pct"]), crop), images["mean"], images["std"]
        interpolation = images["interpolation"]
    else:
        presets = torchvision.models.get_model_weights(arch).DEFAULT.transforms()
        crop = image_size or presets.crop_size[0]
        resize, mean, std = round(presets.resize_size[0] * crop / presets.crop_size[0]), presets.mean, presets.std
        interpolation = INTERPOLATIONS[presets.interpolation]
    resize = resize_size or resize
    if resize > MAX_SIDE:
        raise TrainError(
            f"hyperparameter image-size has value {crop}: images would be resized to {resize} pixels, more than"
            f" {MAX_SIDE}; use less, or give resize-size too"
        )
    if resize < crop:
        raise TrainError(f"hyperparameter resize-size has value {resize}: expected at least the image-size, {crop}")
    return Preprocessing(resize=resize, crop=crop, mean=tuple(mean), std=tuple(std), interpolation=interpolation)


def _try(model: nn.Module, arch: str, side: int) -> None:
    """Raise TrainError if the architecture cannot take images of `side` x `side` pixels."""
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_side(arch, side, error) from None


def _wrong_side(arch: str, side: int, error: Exception) -> TrainError:
    return TrainError(
        f"hyperparameter image-size has value {side}: {arch} does not take images of that side; leave it at 0, which is"
        f" {preprocessing_of(arch, 0, 0).crop}, or try another ({(str(error) or type(error).__name__).splitlines()[0]})"
    )
