"""The device of a job, and the reason for it."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

from container_train.errors import TrainError

log = logging.getLogger(__name__)

DEVICE_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0")


def present() -> bool:
    """Return True where the machine has an NVIDIA GPU, usable or not."""
    return any(Path(file).exists() for file in DEVICE_FILES)


def choose(wanted: str) -> torch.device:
    """Return the device for `wanted` (auto, cpu or cuda). Raises TrainError for a GPU that cannot be used."""
    there, visible = present(), os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and visible.strip() in ("", "-1")
    if wanted == "cpu" or (wanted == "auto" and (not there or hidden)):
        reason = "CUDA_VISIBLE_DEVICES hides the GPUs" if there else "no NVIDIA GPU here"
        reason = "as asked" if wanted == "cpu" else reason
        log.info("device: cpu, %d threads, torch %s (%s)", torch.get_num_threads(), torch.__version__, reason)
        return torch.device("cpu")
    if not there:
        raise TrainError("hyperparameter device has value 'cuda': this machine has no NVIDIA GPU; use auto or cpu")
    if not torch.cuda.is_available():
        if visible is not None:
            raise TrainError(
                f"CUDA_VISIBLE_DEVICES is {visible!r}: there is no such NVIDIA GPU here; unset it, or set device to cpu"
            )
        raise TrainError(
            f"the GPU cannot be used: {_reason()}; torch {torch.__version__} is built for CUDA"
            f" {torch.version.cuda or 'none'}; use an instance with a newer driver, or set device to cpu"
        )
    name, has = torch.cuda.get_device_name(0), "".join(map(str, torch.cuda.get_device_capability(0)))
    oldest = min(
        (int(found[0]) for arch in torch.cuda.get_arch_list() if (found := re.search(r"\d+", arch))), default=0
    )
    if int(has) < oldest:
        raise TrainError(
            f"the GPU cannot be used: {name} is sm_{has}, this torch needs sm_{oldest} or newer;"
            " use a newer instance type (ml.g4dn and up), or set device to cpu"
        )
    log.info("device: cuda, %s (sm_%s), CUDA %s, torch %s", name, has, torch.version.cuda, torch.__version__)
    return torch.device("cuda")


def _reason() -> str:
    """Return what torch says of the GPU, such as the version of its driver."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].removesuffix(".")
    return "torch does not say why"


def launched(device: torch.device) -> Callable[[], None]:
    """Mark what was launched on the device so far; the returned function waits until it is done."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # no core is kept busy: decoding processes want all of them
    event.record()
    return event.synchronize
