"""The values that are saved of a tensor: a sample, and sums over all of them."""

import torch

VALUES = 1024
"""Values saved of a tensor: every n-th in the order of memory, at most this many. Smaller tensors are saved whole."""
ACTIVITY_VALUES = 1 << 19
"""Values of a ReLU's input that are looked at for its activity; of a larger one every n-th position."""


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """All values as one dimension, without a copy for the two layouts that networks have, in the order of memory."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


def values(tensor: torch.Tensor) -> torch.Tensor:
    """A sample of VALUES float32 values at most, evenly spread; a copy. Whole tensors keep their shape."""
    if tensor.numel() <= VALUES:
        return tensor.to(torch.float32, copy=True)
    # An odd stride: an even one would meet the same channels of a convolution's weights again and again.
    stride = (tensor.numel() // VALUES) | 1
    return flat(tensor)[::stride][:VALUES].to(torch.float32, copy=True)


def mean_absolute(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of |x| over the whole tensor, in float32: NaN where it holds a NaN, else infinite where it does."""
    total: torch.Tensor = torch.linalg.vector_norm(flat(tensor), 1, dtype=torch.float32)
    return total / max(tensor.numel(), 1)


def norm(tensor: torch.Tensor) -> torch.Tensor:
    """The Euclidean norm of the whole tensor, in float32."""
    result: torch.Tensor = torch.linalg.vector_norm(flat(tensor), 2, dtype=torch.float32)
    return result


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of the whole tensor, in float32, not finite where a value is not; a third of mean_absolute's time."""
    return flat(tensor).sum(dtype=torch.float32) / max(tensor.numel(), 1)


def activity(inputs: torch.Tensor) -> torch.Tensor:
    """For each unit of a ReLU the share of its inputs that are positive: (N, C, ...) -> (C,), (N, ..., C) for tokens.

    A unit is a channel of a convolution's output, or one feature of a linear layer's. Of more than ACTIVITY_VALUES
    inputs every n-th position is looked at, n odd, so that these are not all of the same column.
    """
    every = -(-inputs.numel() // ACTIVITY_VALUES) | 1
    if inputs.ndim == 4 and not inputs.is_contiguous(memory_format=torch.channels_last):
        return (inputs.flatten(2)[:, :, ::every] > 0).float().mean(dim=(0, 2))
    rows = inputs.movedim(1, -1) if inputs.ndim == 4 else inputs
    return (rows.reshape(-1, rows.shape[-1])[::every] > 0).float().mean(dim=0)
