"""Frozen layers by OpenVINO: only where it agrees with torch, and never where float32 was asked for."""

import pytest
import torch

from container_train.compute.precision import Precision
from container_train.features import extractor
from container_train.model import builder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> builder.Network:
    torch.manual_seed(0)
    made = builder.build(
        "mobilenet_v3_small", 3, weights="none", weights_file=None, freeze_until="backbone", image_size=64
    )
    made.to(CPU)
    return made


@pytest.fixture(scope="module")
def sample() -> torch.Tensor:
    return torch.randint(256, (20, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(
    network: builder.Network, dtype: torch.dtype, *, exact: bool = False, images: int = 10_000
) -> extractor.FeatureExtractor:
    return extractor.FeatureExtractor(network, Precision("cpu", dtype), CPU, exact=exact, images=images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_openvino_agrees_whatever_the_batch(network: builder.Network, sample: torch.Tensor, dtype: torch.dtype) -> None:
    by_torch = made(network, dtype, images=1)(sample)[0]
    it = made(network, dtype)
    it.choose(sample)
    assert it.by == "OpenVINO"
    features = it(sample)[0]
    assert features.dtype == by_torch.dtype == dtype
    norms = (features.float() - by_torch.float()).norm(dim=1) / by_torch.float().norm(dim=1)
    assert float(norms.max()) < (1e-3 if dtype == torch.float32 else 0.1)
    assert torch.equal(features[17:], it(sample[17:])[0])  # whatever else is in the batch


def test_where_it_does_not_agree_torch_computes(
    network: builder.Network, sample: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(extractor, "TOLERANCE", 0.0)
    it = made(network, torch.float32)
    with caplog.at_level("INFO"):
        it.choose(sample)
    assert it.by == "torch"
    assert "OpenVINO's features are off by" in caplog.text
    assert torch.equal(it(sample)[0], made(network, torch.float32, exact=True)(sample)[0])


def test_what_it_cannot_convert_torch_computes(
    network: builder.Network, sample: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operation\nand a stack")

    monkeypatch.setattr(extractor.FeatureExtractor, "_compile", refuse)
    it = made(network, torch.float32)
    with caplog.at_level("INFO"):
        it.choose(sample)
    assert it.by == "torch"
    assert caplog.messages[-1] == "frozen layers: by torch, OpenVINO cannot (no such operation)"


@pytest.mark.parametrize("options", [{"exact": True}, {"images": 100}], ids=["amp off", "few images"])
def test_torch_computes_where_openvino_is_not_wanted(
    network: builder.Network, sample: torch.Tensor, options: dict[str, int]
) -> None:
    it = made(network, torch.float32, **options)  # type: ignore[arg-type]
    it.choose(sample)
    assert it.by == "torch"


def test_any_weight_changes_the_description(network: builder.Network) -> None:
    it = made(network, torch.float32)
    before = it.describe()
    assert before == it.describe()
    assert network.backbone is not None
    name, tensor = next((n, t) for n, t in network.backbone.state_dict().items() if "running_mean" in n)
    tensor[0] += 1
    assert it.describe() != before, name
    tensor[0] -= 1
    assert made(network, torch.float32, exact=True).describe() != it.describe()
