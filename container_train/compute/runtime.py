"""The device, processes and stop flag of a training, which all of its parts share."""

from dataclasses import dataclass

import torch

from container_train.compute.precision import Precision
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.signals import StopFlag


@dataclass(frozen=True)
class Runtime:
    """The device and its arithmetic, the flag that stops the job, and the processes that share each batch."""

    device: torch.device
    precision: Precision
    stop: StopFlag
    group: ProcessGroup = SINGLE
