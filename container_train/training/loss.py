"""The loss: cross entropy with smoothed labels and class weights in training, plain in evaluation."""

import torch
from torch import nn
from torch.nn import functional

from container_train.hyperparameters import Hyperparameters


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """The loss of logits (N, classes) for targets (N,) or, of mixed images, for probabilities (N, classes).

    In evaluation it is the plain mean, with any loss of the training: the losses of two trainings can be compared.
    """

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().forward(logits, targets) if self.training else functional.cross_entropy(logits, targets)

    def divisor(self, targets: torch.Tensor) -> torch.Tensor | int:
        """Return what the training's loss divides the sum over these targets by."""
        # torch divides by the weights of the targets, but not where these are probabilities.
        return len(targets) if self.weight is None or targets.ndim > 1 else self.weight[targets].sum()


def loss_for(hp: Hyperparameters, targets: torch.Tensor, classes: int) -> CrossEntropyLoss:
    """Return the loss for training images with these targets (N,), on their device.

    Balanced weights are N / (classes x images of the class): as if all classes had the same number of images.
    """
    weight = None
    if hp.class_weights == "balanced":
        weight = len(targets) / (classes * torch.bincount(targets, minlength=classes).clamp_min(1).float())
    return CrossEntropyLoss(weight, label_smoothing=hp.label_smoothing).to(targets.device)


def divisors(loss: CrossEntropyLoss, targets: torch.Tensor, batch: int) -> list[float]:
    """Return what the loss of each batch of an epoch with these targets (N,), in order, has to be divided by.

    Known without asking the processes that share a batch. Mixing pairs of a batch does not change it.
    """
    weights = torch.ones(len(targets)) if loss.weight is None else loss.weight.cpu()[targets.cpu()]
    return [float(part.double().sum()) for part in weights.split(batch)]
