"""The device of a job, and the reason for it."""

import contextlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from container_train.errors import TrainError

log = logging.getLogger(__name__)

DEVICE_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0")


@dataclass(frozen=True)
class Probe:
    """The GPU as the machine and torch report it; unknown values are empty. Tests make their own."""

    present: bool = False
    usable: bool = False
    driver: str = ""  # kernel driver, as 535.183.01
    driver_cuda: str = ""  # newest CUDA that the driver supports, as 12.2
    built_cuda: str = ""  # CUDA of the torch build; empty for a CPU build
    name: str = ""
    capability: tuple[int, int] = (0, 0)
    oldest_capability: tuple[int, int] = (0, 0)  # that the torch build supports
    visible: str | None = None  # CUDA_VISIBLE_DEVICES

    @property
    def hidden(self) -> bool:
        """CUDA_VISIBLE_DEVICES hides all GPUs."""
        return self.visible is not None and self.visible.strip() in ("", "-1")


def probe() -> Probe:
    """Ask the machine. Never raises."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not any(Path(file).exists() for file in DEVICE_FILES):
        return Probe(visible=visible)
    import pynvml  # not needed where nobody asks for the driver

    driver = driver_cuda = ""
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver, version = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
        driver_cuda = f"{version // 1000}.{version % 1000 // 10}"
        pynvml.nvmlShutdown()
    built = torch.version.cuda or ""
    if not built or not torch.cuda.is_available():
        return Probe(True, False, driver, driver_cuda, built, visible=visible)
    built_for = [re.fullmatch(r"\w+?_(\d+)(\d)\D?", arch) for arch in torch.cuda.get_arch_list()]
    oldest = min(((int(match[1]), int(match[2])) for match in built_for if match), default=(0, 0))
    name, capability = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
    return Probe(True, True, driver, driver_cuda, built, name, capability, oldest, visible)


def choose(wanted: str, seen: Probe) -> torch.device:
    """Return the device for `wanted` (auto, cpu or cuda). Raises TrainError for a GPU that cannot be used."""
    if wanted == "cpu" or (wanted == "auto" and (not seen.present or seen.hidden)):
        reason = "CUDA_VISIBLE_DEVICES hides the GPUs" if seen.present else "no NVIDIA GPU here"
        reason = "as asked" if wanted == "cpu" else reason
        log.info("device: cpu, %d threads, torch %s (%s)", torch.get_num_threads(), torch.__version__, reason)
        return torch.device("cpu")
    if not seen.present:
        raise TrainError("hyperparameter device has value 'cuda': this machine has no NVIDIA GPU; use auto or cpu")
    if not seen.usable and seen.visible is not None:
        raise TrainError(
            f"CUDA_VISIBLE_DEVICES is {seen.visible!r}: there is no such NVIDIA GPU here; unset it, or set device to"
            " cpu"
        )
    if not seen.usable:
        raise TrainError(
            f"the GPU cannot be used: driver {seen.driver or 'unknown'} supports CUDA up to"
            f" {seen.driver_cuda or 'unknown'}, torch {torch.__version__} is built for CUDA"
            f" {seen.built_cuda or 'none'}; use an instance with a newer driver, or set device to cpu"
        )
    if seen.capability < seen.oldest_capability:
        has, needs = (f"sm_{major}{minor}" for major, minor in (seen.capability, seen.oldest_capability))
        raise TrainError(
            f"the GPU cannot be used: {seen.name} is {has}, this torch needs {needs} or newer;"
            " use a newer instance type (ml.g4dn and up), or set device to cpu"
        )
    log.info(
        "device: cuda, %s (sm_%d%d), driver %s, CUDA %s (the driver supports %s), torch %s",
        seen.name, *seen.capability, seen.driver, seen.built_cuda, seen.driver_cuda, torch.__version__,
    )  # fmt: skip
    return torch.device("cuda")


def launched(device: torch.device) -> Callable[[], None]:
    """Mark what was launched on the device so far; the returned function waits until it is done."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # no core is kept busy: decoding processes want all of them
    event.record()
    return event.synchronize
