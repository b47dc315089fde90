"""torch.compile of what is trained."""

import os
import shutil
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from container_train.distributed.process_group import ProcessGroup
from container_train.errors import TrainError

COMPILERS = ("gcc", "clang", "cc")  # one of which torch calls


class Compiled:
    """A module compiled for one size of batch: the first call takes a minute. Hooks within it are left out."""

    def __init__(self, module: nn.Module, group: ProcessGroup) -> None:
        """Raises TrainError where it cannot be compiled."""
        if group.size > 1:
            raise _error("several processes train without it (DistributedDataParallel's static graph)")
        if not any(map(shutil.which, filter(None, (os.environ.get("CC"), *COMPILERS)))):
            raise _error("torch calls a C compiler for it, and there is none here; install gcc")
        self.module = torch.compile(module, dynamic=False)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        try:
            return self.module(*inputs)
        except TorchDynamoException as error:
            raise _error(str(error).strip().splitlines()[0]) from error


def _error(reason: str) -> TrainError:
    return TrainError(f"hyperparameter compile has value 'on': {reason}; or leave it off")
