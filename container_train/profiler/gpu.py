"""Readings of the GPUs by NVIDIA's management library (NVML)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DRIVER = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))


class Gpus:
    """The GPUs that this container sees. `nvml`: the library `pynvml`, loaded only where there is a driver."""

    def __init__(self, nvml: Any = None) -> None:
        self.nvml, self.handles, self.error = nvml, list[Any](), ""
        if nvml is None and not any(path.exists() for path in DRIVER):
            return
        try:
            if nvml is None:
                import pynvml

                self.nvml = pynvml
            self.nvml.nvmlInit()
            self.handles = [self.nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self.nvml.nvmlDeviceGetCount())]
        except Exception as error:  # a driver without the library, a library without the driver, no permission
            self.handles = []
            self.error = f"GPUs are not monitored: {error}"

    def read(self) -> Iterator[tuple[int, str, float]]:
        """(GPU, dimension, value): % of the time that a kernel ran, % of memory in use, W and degrees Celsius."""
        nvml = self.nvml
        ask: dict[str, Callable[[Any], float]] = {
            "GPUUtilization": lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "GPUMemoryUtilization": lambda gpu: 100 * (m := nvml.nvmlDeviceGetMemoryInfo(gpu)).used / m.total,
            "GPUPowerInWatts": lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "GPUTemperatureInCelsius": lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        }
        for index, handle in enumerate(self.handles):
            for dimension, value in ask.items():
                try:
                    yield index, dimension, float(value(handle))
                except nvml.NVMLError:  # not every GPU tells everything, and one may fall off the bus
                    continue
