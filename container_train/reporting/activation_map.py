"""Class activation maps: what in an image speaks for a class (https://arxiv.org/abs/1512.04150).

Of a network that ends in global pooling, the gradient of a class's score by the last feature map is the same at all
positions, and is what the class weights each channel with. So nothing has to be known of the architecture: where the
gradient differs from position to position, there is no such map.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from container_train.reporting.words import count

log = logging.getLogger(__name__)

MOST_SECONDS = 15.0  # for all maps of a report
ALIKE = 1e-3  # of the largest gradient: differences below it are rounding

Maps = npt.NDArray[np.float32]


def of(model: nn.Module, images: npt.NDArray[np.float32], classes: Sequence[int]) -> Maps | None:
    """Return for each of the images (N, 3, H, W) the evidence for its class: (N, h, w) from 0 to 1, h and w small.

    None if the network has no such map, or would take too long; the log says which.
    """
    started = time.monotonic()
    try:
        found = _of(model, torch.from_numpy(images).to(next(model.parameters()).device), classes)
    except Exception as error:  # a picture for the report is no reason for a training to fail
        log.info("activation maps: none (%s: %s)", type(error).__name__, " ".join(str(error).split())[:200])
        return None
    seconds = time.monotonic() - started
    why = "" if found is not None else ": none, the network does not end in global pooling, or is too slow"
    log.info("activation maps of %s in %.1f s%s", count(len(images), "mistake"), seconds, why)
    return found


def _of(model: nn.Module, images: torch.Tensor, classes: Sequence[int]) -> Maps | None:
    left, features, started = 0, torch.empty(0), time.monotonic()

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal left
        left += _is_map(output)

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Have the gradient's graph begin at the last map."""
        nonlocal left, features
        left -= _is_map(output)
        if left or not _is_map(output):
            return None
        torch.set_grad_enabled(True)
        features = output.detach().requires_grad_()
        return features.clone()  # what follows may work in place

    with register_module_forward_hook(count), torch.inference_mode():
        model(images[:1])
    if not left or (time.monotonic() - started) * len(images) > MOST_SECONDS:
        return None
    with register_module_forward_hook(cut), torch.no_grad():
        scores = model(images)
        (gradient,) = torch.autograd.grad(scores[range(len(images)), list(classes)].sum(), features)
    used = gradient != 0  # a ReLU may lie between the map and the pooling
    weights = gradient.sum((2, 3), keepdim=True) / used.sum((2, 3), keepdim=True).clamp(min=1)
    if float(((gradient - weights) * used).abs().max()) > ALIKE * float(gradient.abs().max()):
        return None
    evidence = (gradient * features).sum(1).detach().clamp(min=0)
    result: Maps = (evidence / evidence.amax((1, 2), keepdim=True).clamp(min=1e-12)).float().cpu().numpy()
    return result


def _is_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1
