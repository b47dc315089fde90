"""What is kept of a tensor: a sample of its values, and sums over all of them."""

import torch
from torch import nn

VALUES = 1024
"""Values saved of a tensor: every n-th in the order of memory, at most this many. Smaller tensors are saved whole."""
ACTIVITY_VALUES = 1 << 22
"""Values of a ReLU's input that are looked at for its activity; of a larger one every n-th picture."""


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """All values as one dimension, without a copy for the two layouts that networks have, in the order of memory."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


def values(tensor: torch.Tensor) -> torch.Tensor:
    """A sample of VALUES float32 values at most, evenly spread; a copy. Whole tensors keep their shape."""
    if tensor.numel() <= VALUES:
        return tensor.to(torch.float32, copy=True)
    line = flat(tensor)
    # An odd stride: an even one would meet the same channels of a convolution's weights again and again.
    stride = (line.numel() // VALUES) | 1
    return line[:: max(stride, -(-line.numel() // VALUES))][:VALUES].to(torch.float32, copy=True)


def mean_absolute(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of |x| over the whole tensor, in float32: NaN where it holds a NaN, else infinite where it does."""
    total: torch.Tensor = torch.linalg.vector_norm(flat(tensor), 1, dtype=torch.float32)
    return total / max(tensor.numel(), 1)


def norm(tensor: torch.Tensor) -> torch.Tensor:
    """The Euclidean norm of the whole tensor, in float32."""
    result: torch.Tensor = torch.linalg.vector_norm(flat(tensor), 2, dtype=torch.float32)
    return result


def activity(inputs: torch.Tensor) -> torch.Tensor:
    """For each unit of a ReLU the share of its inputs that are positive: (N, C, ...) -> (C,), (N, ..., C) for tokens.

    A unit is a channel of a convolution's output, or one feature of a linear layer's.
    """
    if inputs.numel() > ACTIVITY_VALUES:
        inputs = inputs[:: -(-inputs.numel() // ACTIVITY_VALUES)]
    unit = 1 if inputs.ndim in (2, 4, 5) else inputs.ndim - 1
    others = [dimension for dimension in range(inputs.ndim) if dimension != unit]
    positive = (inputs > 0).sum(dim=others) if others else inputs > 0
    return positive.float() / max(inputs.numel() // max(inputs.shape[unit], 1), 1)


RELUS = (nn.ReLU, nn.ReLU6)
