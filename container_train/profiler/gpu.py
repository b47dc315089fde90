"""What the GPUs do, by NVIDIA's management library (NVML)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))


@dataclass(frozen=True)
class Reading:
    """Of one GPU: % of the time that a kernel ran, % of its memory in use, W, degrees Celsius; None: not told."""

    utilization: float | None
    memory: float | None
    watts: float | None
    celsius: float | None


class Gpus:
    """The GPUs that this container sees. `nvml`: the library `pynvml`, loaded only where there is a driver."""

    def __init__(self, nvml: Any = None) -> None:
        self.nvml, self.handles, self.names, self.error = nvml, list[Any](), list[str](), ""
        if nvml is None and not any(path.exists() for path in DRIVER):
            return
        try:
            if nvml is None:
                import pynvml

                self.nvml = pynvml
            self.nvml.nvmlInit()
            self.handles = [self.nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self.nvml.nvmlDeviceGetCount())]
            self.names = [_text(self.nvml.nvmlDeviceGetName(handle)) for handle in self.handles]
        except Exception as error:  # a driver without the library, a library without the driver, no permission
            self.handles, self.names = [], []
            self.error = f"GPUs are not watched: {error}"

    def read(self) -> list[Reading]:
        return [
            Reading(
                self._value(lambda h=handle: self.nvml.nvmlDeviceGetUtilizationRates(h).gpu),
                self._value(lambda h=handle: _share(self.nvml.nvmlDeviceGetMemoryInfo(h))),
                self._value(lambda h=handle: self.nvml.nvmlDeviceGetPowerUsage(h) / 1000),
                self._value(lambda h=handle: self.nvml.nvmlDeviceGetTemperature(h, self.nvml.NVML_TEMPERATURE_GPU)),
            )
            for handle in self.handles
        ]

    def _value(self, ask: Any) -> float | None:
        try:
            return float(ask())
        except self.nvml.NVMLError:  # not every GPU tells everything, and one may fall off the bus
            return None


def _share(memory: Any) -> float:
    return 100 * float(memory.used) / float(memory.total)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
