"""No GPU is needed: the library is a stand-in. That its names are right is held against the real one."""

import inspect

import pynvml

from container_train.profiler import gpu
from container_train.profiler.gpu import Gpus
from tests.container_train.profiler.nvml import Library


def test_readings() -> None:
    gpus = Gpus(Library())
    names = ("GPUUtilization", "GPUMemoryUtilization", "GPUPowerInWatts", "GPUTemperatureInCelsius")
    first = [(0, name, value) for name, value in zip(names, (80, 25, 72.5, 60), strict=True)]
    # The second does not tell its power.
    assert list(gpus.read()) == [*first, (1, names[0], 20), (1, names[1], 50), (1, names[3], 61)]


def test_a_library_that_does_not_fit_the_driver() -> None:
    gpus = Gpus(Library(broken=True))
    assert list(gpus.read()) == []
    assert gpus.error == "GPUs are not monitored: Driver/library version mismatch"


def test_a_machine_without_a_driver_does_not_load_the_library() -> None:
    if not any(path.exists() for path in gpu.DRIVER):
        gpus = Gpus()
        assert (gpus.nvml, list(gpus.read()), gpus.error) == (None, [], "")


def test_the_stand_in_has_the_names_of_the_library() -> None:
    names = {name for name, _ in inspect.getmembers(Library) if name.lower().startswith("nvml")}
    assert all(hasattr(pynvml, name) for name in names)
    used = {word for word in inspect.getsource(gpu).replace("(", ".").split(".") if word.startswith("nvmlDevice")}
    assert used <= names
