"""The batch statistics of a backbone with random weights."""

from collections.abc import Iterable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from container_train.model.builder import Network


@torch.no_grad()
def estimate_statistics(network: Network, batches: Iterable[torch.Tensor]) -> int:
    """Give a random frozen backbone the batch statistics of some training images; returns the number of batches.

    With the initial ones (mean 0, variance 1) the signal dies out on its way through the random layers, and all
    images look alike at the end.
    """
    frozen = [
        module
        for module in network.model.modules()
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters())
    ]
    if not frozen:
        return 0
    momenta = [module.momentum for module in frozen]
    network.eval_mode()
    for module in frozen:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over the batches
        module.train()
    count = 0
    for images in batches:
        network.model(images)
        count += 1
    for module, momentum in zip(frozen, momenta, strict=True):
        module.momentum = momentum
        module.eval()
    return count
