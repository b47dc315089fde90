"""A stand-in for NVIDIA's library: these tests run where there is no GPU. Its names are those of pynvml."""

from types import SimpleNamespace


class NVMLError(Exception):
    pass


class Library:
    """GPUs with fixed readings; a handle is its index."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, utilization: tuple[int, ...] = (80, 20), *, broken: bool = False) -> None:
        self.utilization, self.broken = utilization, broken

    def nvmlInit(self) -> None:
        if self.broken:
            raise NVMLError("Driver/library version mismatch")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.utilization)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.utilization[handle], memory=1)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=16_000, used=4_000 * (handle + 1), free=0)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle:
            raise NVMLError("Not Supported")
        return 72_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 60 + handle + sensor
