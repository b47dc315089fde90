from dataclasses import replace

import pytest

from container_train.errors import TrainError
from container_train.training import device

NONE = device.Probe()
GOOD = device.Probe(True, True, "580.65.06", "13.0", "13.0", "NVIDIA T4", (7, 5), (7, 5))
OLD_DRIVER = replace(GOOD, usable=False, driver="535.183.01", driver_cuda="12.2")


def test_no_gpu_is_the_cpu() -> None:
    assert device.choose("auto", NONE).type == "cpu"
    assert device.choose("cpu", GOOD).type == "cpu"


def test_a_usable_gpu_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert device.choose("auto", GOOD).type == "cuda"
    assert "driver 580.65.06" in caplog.text
    assert "NVIDIA T4" in caplog.text


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_driver_too_old_names_both_versions_and_the_way_out(wanted: str) -> None:
    with pytest.raises(
        TrainError, match=r"driver 535.183.01 supports CUDA up to 12.2, torch .* CUDA 13.0; .*set device to cpu"
    ):
        device.choose(wanted, OLD_DRIVER)


def test_a_gpu_too_old_for_torch_is_refused() -> None:
    with pytest.raises(TrainError, match=r"NVIDIA V100 is sm_70, this torch needs sm_75 or newer"):
        device.choose("auto", replace(GOOD, name="NVIDIA V100", capability=(7, 0)))


def test_gpus_that_the_environment_hides_are_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    hidden = replace(GOOD, usable=False, visible="")
    with caplog.at_level("INFO"):
        assert device.choose("auto", hidden).type == "cpu"
    assert "CUDA_VISIBLE_DEVICES hides the GPUs" in caplog.text
    with pytest.raises(TrainError, match="CUDA_VISIBLE_DEVICES is '': there is no such"):
        device.choose("cuda", hidden)


def test_a_gpu_that_is_not_there_is_named_by_the_variable_that_asks_for_it() -> None:
    with pytest.raises(TrainError, match="CUDA_VISIBLE_DEVICES is '7': there is no such NVIDIA GPU here; unset it"):
        device.choose("auto", replace(GOOD, usable=False, visible="7"))


def test_a_torch_without_cuda_beside_a_gpu_is_refused() -> None:
    with pytest.raises(TrainError, match="built for CUDA none"):
        device.choose("auto", replace(GOOD, usable=False, built_cuda=""))


def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(TrainError, match="no NVIDIA GPU"):
        device.choose("cuda", NONE)


def test_the_probe_never_raises() -> None:
    seen = device.probe()
    assert seen.usable <= seen.present
