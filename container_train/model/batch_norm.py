"""Layers whose batch statistics are trained, and how many images they need."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import TrainError
from container_train.model.builder import Network

FEWEST = 2  # images for each process in a step: the variance of a single value, as in maps of 1 x 1, is undefined


def is_trained(rest: nn.Module) -> bool:
    """Return True where one of its modules in training mode is such a layer."""
    return any(isinstance(module, _BatchNorm) and module.training for module in rest.modules())


def parts(rest: nn.Module, images: int, wanted: int) -> int:
    """Return how many of the `wanted` parts a process's `images` of a step can have, each with enough of them."""
    return max(1, min(wanted, images // (FEWEST if is_trained(rest) else 1)))


def check(network: Network, batch_size: int, images: int, group: ProcessGroup = SINGLE, *, accumulate: int = 1) -> None:
    """Raise TrainError where a step has too few of an epoch's `images`. Leaves the network in evaluation mode."""
    network.train_mode()
    trained = is_trained(network.head)
    network.eval_mode()
    least, words = FEWEST * group.size, "the trained batch norm layers need at least two images for each process"
    if trained and batch_size < least:
        raise TrainError(
            f"hyperparameter batch-size has value {batch_size}: {words}; use at least {least}"
            f"{f' for {group.size} processes' if group.size > 1 else ''}, or set freeze-until to backbone"
        )
    if trained and batch_size < least * accumulate:
        raise TrainError(
            f"hyperparameter accumulate has value {accumulate}: {words} in each part of a batch of {batch_size}; use at"
            f" most {batch_size // least}, or set batch-norm to frozen"
        )
    if trained and images < least:
        raise TrainError(f"channel train has {images} images for {group.size} processes: {words}; add images")
