"""The optimizer, the learning rates of its layers, and how they change."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network
from container_train.model.layer_groups import layer_groups


def optimizer_for(network: Network, hp: Hyperparameters) -> torch.optim.Optimizer:
    """Return the optimizer of the trained parameters, in groups of one learning rate and weight decay each."""
    groups = parameter_groups(network, hp)
    # Fused: one kernel for all of them; on a CPU a step of ResNet18's Adam takes 14 ms of one thread instead of 95.
    if hp.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=hp.lr, momentum=hp.momentum, fused=True)
    kind = torch.optim.AdamW if hp.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=hp.lr, fused=True)


def parameter_groups(network: Network, hp: Hyperparameters) -> list[dict[str, Any]]:
    """Return the trained parameters with their `lr` and `weight_decay`, of one dimension (biases, norms) apart."""
    rates = learning_rates(network, hp)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim <= 1 and hp.norm_decay == "off" else hp.weight_decay
            groups.setdefault((rates[name], decay), []).append(parameter)
    return [{"params": of, "lr": rate, "weight_decay": decay} for (rate, decay), of in groups.items()]


def learning_rates(network: Network, hp: Hyperparameters) -> dict[str, float]:
    """Return the learning rate of each parameter by name.

    The new layer has `lr`; the stage before it `backbone-lr`, or `lr` times `layer-decay`; each further one
    `layer-decay` times that of the stage after it.
    """
    *backbone, head = layer_groups(network.model, network.new_layer)
    first = hp.backbone_lr or hp.lr * hp.layer_decay
    rates = dict.fromkeys(head, hp.lr)
    for place, stage in enumerate(reversed(backbone)):
        rates |= dict.fromkeys(stage, first * hp.layer_decay**place)
    return rates


def factor(hp: Hyperparameters, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the factor on the learning rates as a function of the number of finished steps."""
    warmup, total = hp.warmup_epochs * steps_per_epoch, hp.epochs * steps_per_epoch

    def at(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if hp.lr_schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0))) / 2

    return at
