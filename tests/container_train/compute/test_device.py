import pytest
import torch

from container_train.compute import device
from container_train.errors import TrainError


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    usable: bool = True,
    capability: tuple[int, int] = (7, 5),
    visible: str | None = None,
    words: str = "",
) -> None:
    """A machine with a GPU, for which this torch has kernels from 7.5 on."""

    def init() -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(device, "present", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90a", "sm_75", "compute_120"])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_no_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "present", lambda: False)
    assert device.choose("auto").type == "cpu"
    with pytest.raises(TrainError, match="this machine has no NVIDIA GPU"):
        device.choose("cuda")


def test_a_usable_gpu_is_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    machine(monkeypatch)
    with caplog.at_level("INFO"):
        assert device.choose("auto").type == "cuda"
    assert "device: cuda, NVIDIA T4 (sm_75)" in caplog.text
    assert device.choose("cpu").type == "cpu"


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {
                "usable": False,
                "words": "The NVIDIA driver is too old (found version 12020). Please update.",
            },
            r"The NVIDIA driver is too old \(found version 12020\); torch .* is built for CUDA .*set device to cpu",
        ),
        ({"capability": (7, 0)}, r"NVIDIA T4 is sm_70, this torch needs sm_75 or newer"),
        ({"usable": False, "visible": "7"}, "CUDA_VISIBLE_DEVICES is '7': there is no such NVIDIA GPU here; unset it"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, wanted: str, given: dict[str, object], message: str
) -> None:
    machine(monkeypatch, **given)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match=message):
        device.choose(wanted)


def test_gpus_that_the_environment_hides_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, usable=False, visible="")
    with caplog.at_level("INFO"):
        assert device.choose("auto").type == "cpu"
    assert "CUDA_VISIBLE_DEVICES hides the GPUs" in caplog.text
    with pytest.raises(TrainError, match="CUDA_VISIBLE_DEVICES is '': there is no such"):
        device.choose("cuda")
