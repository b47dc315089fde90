"""The optimizer. Whatever changes the learning rate during a training belongs here, too."""

import torch

from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network


def optimizer_for(network: Network, hp: Hyperparameters) -> torch.optim.Optimizer:
    """Return the optimizer of the trained parameters."""
    parameters = network.trainable()
    fused = parameters[0].is_cuda  # one kernel for all of them
    if hp.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=hp.lr, momentum=hp.momentum, weight_decay=hp.weight_decay, fused=fused)
    kind = torch.optim.AdamW if hp.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=hp.lr, weight_decay=hp.weight_decay, fused=fused)
