"""The moving average of the weights, which is evaluated and kept in their place."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from container_train.distributed.process_group import ProcessGroup

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class Average(AveragedModel):
    """The average of the parameters and buffers of `module` over its last steps, about 1 / (1 - decay) of them.

    Of the first steps it averages fewer, so that it has left the initial weights behind sooner.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        self.module.requires_grad_(False)

    def _average(self, averaged: Tensors, current: Tensors, count: torch.Tensor | int) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the averages by name: `functional_call` computes with them, and the module's own hooks are called."""
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def agree(self, module: nn.Module, group: ProcessGroup) -> None:
        """Give all processes the mean of the batch statistics that are trained in `module`."""
        for own, theirs in zip(self.module.modules(), module.modules(), strict=True):
            own.training = theirs.training
        group.average_buffers(self.module)
        self.module.eval()
