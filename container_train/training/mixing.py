"""MixUp and CutMix of whole batches, on their device, alike in all processes that share a batch."""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from container_train.data.images import seeded
from container_train.features.files import Features
from container_train.hyperparameters import Hyperparameters


class Mixing:
    """Mixes each image of a batch with the one before it in the batch, which has `classes` classes.

    Of features that are no images, such as those of a frozen backbone, MixUp takes each number for a channel.
    """

    def __init__(self, hp: Hyperparameters, classes: int) -> None:
        self.seed = hp.seed
        kinds = ((v2.MixUp, hp.mixup), (v2.CutMix, hp.cutmix))
        self.transforms = [
            kind(alpha=alpha, num_classes=classes, labels_getter=lambda batch: batch[-1])
            for kind, alpha in kinds
            if alpha
        ]

    def __bool__(self) -> bool:
        return bool(self.transforms)

    def __call__(self, inputs: Features, targets: torch.Tensor, epoch: int, step: int) -> tuple[Features, torch.Tensor]:
        """Return mixed inputs, each (N, ...), and probabilities (N, classes) of targets (N,).

        What is drawn depends on (seed, epoch, step) alone.
        """
        images = [tv_tensors.Image(x if x.ndim == 4 else x.flatten(1)[:, :, None, None]) for x in inputs]
        with seeded(hash((self.seed, epoch, step))):
            *mixed, probabilities = v2.RandomChoice(self.transforms)(*images, targets)
        shaped = (new.as_subclass(torch.Tensor).reshape(old.shape) for new, old in zip(mixed, inputs, strict=True))
        return tuple(shaped), probabilities
