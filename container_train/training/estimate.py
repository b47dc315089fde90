"""The time that a training of all layers takes on a CPU, told before it begins."""

import copy
import time

import torch

from container_train.compute.precision import Precision
from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network
from container_train.reporting.words import count, duration

IMAGES = 4
LONG_SECONDS = 600.0  # from which something else is advised


def words(network: Network, hp: Hyperparameters, precision: Precision, images: float) -> str:
    """Return a line of log for `images` in each epoch, after steps of a copy of the network on some of them."""
    side = network.preprocessing.crop
    model = copy.deepcopy(network.model).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs do not know it here
    blank = torch.zeros(IMAGES, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):  # the first one is slower
            started = time.monotonic()
            with precision.autocast():
                outputs = model(blank)
            outputs.float().sum().backward()
    seconds = (time.monotonic() - started) / IMAGES
    whole = seconds * images * hp.epochs
    advice = (
        "; use a GPU, --recipe views, which trains the new layer alone, fewer epochs, or a smaller arch or image-size"
    )
    return (
        f"time: about {duration(whole)} on this CPU for {count(hp.epochs, 'epoch')} of all layers, {seconds:.2g} s an"
        f" image{advice if whole > LONG_SECONDS else ''}"
    )
