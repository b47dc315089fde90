"""The device of a job, and why it is that one."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pynvml
import torch

from container_train.errors import TrainError

log = logging.getLogger(__name__)

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
WAYS_OUT = "use an instance with a newer driver, or say --device cpu to train without the GPU"


@dataclass(frozen=True)
class Probe:
    """What the machine and torch say of GPUs; a value of its own so that a check can be made without one."""

    present: bool
    usable: bool
    driver: str  # kernel driver, as 535.183.01
    driver_cuda: str  # newest CUDA that the driver takes, as 12.2
    built_cuda: str  # CUDA of the torch build; empty for a CPU build
    name: str
    capability: str  # as sm_75
    built_capabilities: tuple[str, ...]
    visible: str | None = None  # CUDA_VISIBLE_DEVICES

    @property
    def hidden(self) -> bool:
        """CUDA_VISIBLE_DEVICES says that there is to be none."""
        return self.visible is not None and self.visible.strip() in ("", "-1")


def probe() -> Probe:
    """Ask the machine. Never raises: what cannot be told is empty."""
    present = DRIVER_VERSION.exists() or Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()
    driver = ""
    if DRIVER_VERSION.exists():
        words = DRIVER_VERSION.read_text().split("\n")[0].split()
        driver = next((word for word in words if word[:1].isdigit() and "." in word), "")
    built = torch.version.cuda or ""
    usable, driver_cuda, name, capability = False, "", "", ""
    capabilities: tuple[str, ...] = ()
    if built:
        driver_cuda = _driver_cuda() if present else ""
        usable = torch.cuda.is_available()
    if usable:
        name = torch.cuda.get_device_name(0)
        capability = "sm_{}{}".format(*torch.cuda.get_device_capability(0))
        capabilities = tuple(torch.cuda.get_arch_list())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Probe(present, usable, driver, driver_cuda, built, name, capability, capabilities, visible)


def _driver_cuda() -> str:
    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ""
    return f"{version // 1000}.{version % 1000 // 10}"


def choose(wanted: str, seen: Probe) -> torch.device:
    """The device for `wanted` (auto, cpu or cuda); raises TrainError rather than leave a GPU unused in silence."""
    if wanted == "cpu" or (wanted == "auto" and (not seen.present or seen.hidden)):
        log.info("device: cpu, %d threads, torch %s%s", torch.get_num_threads(), torch.__version__, _why(wanted, seen))
        return torch.device("cpu")
    if not seen.present:
        raise TrainError("hyperparameter device has value 'cuda': this machine has no NVIDIA GPU; use auto or cpu")
    if not seen.built_cuda:
        raise TrainError(
            f"there is an NVIDIA GPU (driver {seen.driver or 'unknown'}), but this torch ({torch.__version__}) is built"
            " without CUDA: install the locked one, or say --device cpu"
        )
    if not seen.usable and seen.visible is not None:
        raise TrainError(
            f"CUDA_VISIBLE_DEVICES is {seen.visible!r}: there is no such NVIDIA GPU here; unset it, or say --device cpu"
        )
    if not seen.usable:
        raise TrainError(
            f"the GPU cannot be used: driver {seen.driver or 'unknown'} takes CUDA up to"
            f" {seen.driver_cuda or 'unknown'}, this image has CUDA {seen.built_cuda}; {WAYS_OUT}"
        )
    oldest = min((_number(arch) for arch in seen.built_capabilities), default=0)
    if _number(seen.capability) < oldest:
        raise TrainError(
            f"the GPU cannot be used: {seen.name} is {seen.capability}, this torch needs sm_{oldest} or newer;"
            " use a newer instance type (ml.g4dn and up), or say --device cpu"
        )
    log.info(
        "device: cuda, %s (%s), driver %s, CUDA %s (driver takes %s), torch %s",
        seen.name, seen.capability, seen.driver, seen.built_cuda, seen.driver_cuda, torch.__version__,
    )  # fmt: skip
    return torch.device("cuda")


def _why(wanted: str, seen: Probe) -> str:
    if wanted == "cpu":
        return " (asked for)"
    return " (CUDA_VISIBLE_DEVICES hides the GPUs)" if seen.present else " (no NVIDIA GPU here)"


def _number(arch: str) -> int:
    digits = "".join(c for c in arch.partition("_")[2] if c.isdigit())
    return int(digits) if digits else 0
