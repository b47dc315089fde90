"""The optimizer, the learning rates of its layers, and how they change during a training."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network

FEWEST_STAGES = 4  # a module that holds nearly all layers is split into its own modules until there are so many
MOST_STAGES = 5  # stem and four stages, as ResNets have; of finer modules several share the decay of one stage


def optimizer_for(network: Network, hp: Hyperparameters) -> torch.optim.Optimizer:
    """Return the optimizer of the trained parameters, in groups of one learning rate and weight decay each."""
    groups = parameter_groups(network.model, hp)
    fused = bool(groups[0]["params"][0].is_cuda)  # one kernel for all of them
    if hp.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=hp.lr, momentum=hp.momentum, fused=fused)
    kind = torch.optim.AdamW if hp.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=hp.lr, fused=fused)


def parameter_groups(model: nn.Module, hp: Hyperparameters) -> list[dict[str, Any]]:
    """Return the trained parameters with their `lr` and `weight_decay`, of one dimension (biases, norms) apart."""
    rates = learning_rates(model, hp)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim <= 1 and hp.norm_decay == "off" else hp.weight_decay
            groups.setdefault((rates[name], decay), []).append(parameter)
    return [{"params": of, "lr": rate, "weight_decay": decay} for (rate, decay), of in groups.items()]


def learning_rates(model: nn.Module, hp: Hyperparameters) -> dict[str, float]:
    """Return the learning rate of each parameter by name.

    The last module has `lr`; the stage before it `backbone-lr`, or `lr` times `layer-decay`; each further one
    `layer-decay` times that of the stage after it.
    """
    *backbone, head = stages(model)
    first = hp.backbone_lr or hp.lr * hp.layer_decay
    span = min(len(backbone), MOST_STAGES) - 1
    rates = dict.fromkeys(head, hp.lr)
    for place, stage in enumerate(reversed(backbone)):
        rates |= dict.fromkeys(stage, first * hp.layer_decay ** (place * span / max(len(backbone) - 1, 1)))
    return rates


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of the parameters in stages of layers, in order; the last stage is the last module alone.

    Stages are the network's own modules, or theirs where it has few. One without a matrix, such as a normalisation,
    belongs to the layers before it.
    """
    sizes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    last = list(sizes)[-1].rpartition(".")[0]
    head = [name for name in sizes if name.rpartition(".")[0] == last]
    found = [[name for name in sizes if name not in head]]
    while sum(len(stage) > 1 for stage in found) < FEWEST_STAGES:  # a single tensor, such as a class token, is none
        split = {index: parts for index, stage in enumerate(found) if len(parts := _parts(stage, sizes)) > 1}
        if not split:
            break
        largest = max(split, key=lambda index: len(found[index]))
        found[largest : largest + 1] = split[largest]
    return [*filter(None, found), head]


def _parts(names: Sequence[str], sizes: Mapping[str, int]) -> list[list[str]]:
    """Split names by the first module in which those of matrices differ."""
    levels = zip(*(name.split(".") for name in names if sizes[name] > 1), strict=False)
    depth = len(list(itertools.takewhile(lambda words: len(set(words)) == 1, levels)))
    parts: list[list[str]] = []
    for _, group in itertools.groupby(names, lambda name: name.split(".")[: depth + 1]):
        part = list(group)
        if parts and all(sizes[name] <= 1 for name in part):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def schedule_for(optimizer: torch.optim.Optimizer, hp: Hyperparameters, steps_per_epoch: int) -> LambdaLR:
    """Return the schedule of the learning rates: call its `step` after each step of the optimizer."""
    return LambdaLR(optimizer, factor(hp, steps_per_epoch))


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


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scale the gradients down to the norm `most` if theirs is larger; 0: leave them."""
    if most:
        nn.utils.clip_grad_norm_(parameters, most)
