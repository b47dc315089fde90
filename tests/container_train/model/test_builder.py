import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from container_train.errors import TrainError
from container_train.model import builder, weights
from tests.conftest import FULL


def build(arch: str = "mobilenet_v3_small", classes: int = 3, **options: Any) -> builder.Network:
    defaults: dict[str, Any] = {"weights": "none", "weights_file": None, "freeze_until": "backbone", "image_size": 64}
    return builder.build(arch, classes, **{**defaults, **options})


# One of each family of classifiers: heads called fc, classifier.N, head, heads.head, and a convolution.
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet18", 64),
        ("squeezenet1_1", 64),
        ("vit_b_32", 224),
        ("swin_t", 64),
        ("googlenet", 64),
        ("regnet_y_400mf", 64),
    ],
)
def test_the_new_layer_alone_is_trained_and_the_cut_computes_the_same(arch: str, size: int) -> None:
    network = build(arch, image_size=size)
    shapes = [tuple(parameter.shape) for parameter in network.trainable()]
    assert all(shape[0] == 3 for shape in shapes), shapes
    assert 1 <= len(shapes) <= 2
    assert network.backbone is not None
    x = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert torch.allclose(network.model(x), network.head(*network.backbone(x)), atol=1e-5)


def test_every_architecture_has_a_preprocessing_and_a_head() -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    # Regnets are built with real memory (they compute their widths with tensors): half a minute for a large one.
    small = [name for name in names if not re.match(r"regnet_._(8|16|32|128)gf", name)]
    for arch in names if FULL else small[::4]:
        assert builder.preprocessing_of(arch, 0, 0).crop > 0
        assert builder.last_layer(arch, 7), arch


def test_freeze_until_a_module_trains_what_follows() -> None:
    network = build("resnet18", freeze_until="layer3")
    trained = {name.split(".")[0] for name, p in network.model.named_parameters() if p.requires_grad}
    assert trained == {"layer4", "fc"}
    assert network.backbone is not None
    network.train_mode()
    assert network.model.get_submodule("layer4.0.bn1").training
    assert not network.model.get_submodule("layer3.0.bn1").training


def test_freeze_nothing_leaves_nothing_to_cache() -> None:
    network = build("resnet18", freeze_until="none")
    assert network.backbone is None
    assert all(p.requires_grad for p in network.model.parameters())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({1: torch.ones(2)}, "hold no state_dict"),
        ({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, "b holds values that are no finite numbers"),
        ({"b.running_mean": torch.tensor([1.0, float("inf")])}, "b.running_mean holds values that are no finite"),
        ({"b.running_var": torch.tensor([float("inf"), float("nan")])}, "b.running_var holds values that are no"),
        ({"b.running_var": torch.full((2,), float("inf"))}, "b.running_var holds values that are no finite numbers"),
        ({"b": torch.tensor([1e300], dtype=torch.float64)}, "b holds values that are no finite numbers of float32"),
        ({"b": torch.eye(2).to_sparse()}, "b is no plain tensor: save plain ones"),
        ({"b": torch.ones(2, dtype=torch.complex64)}, "b is no plain tensor"),
        ({"b": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "b is no plain tensor"),
        ({"epoch": 3, "net": {}}, "hold no state_dict .* but dict with the keys 'epoch', 'net'"),
        ({"b.running_var": torch.tensor([1.0, -float("inf")])}, "b.running_var holds values that are no finite"),
    ],
)
def test_weights_that_no_network_can_use_are_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(TrainError, match=words):
        weights.read_state_dict(tmp_path / "w.pth")


def test_a_checkpoint_s_model_and_small_floats_are_taken(tmp_path: Path) -> None:
    tensor = torch.ones(2).to(torch.float8_e4m3fn)
    torch.save({"epoch": 3, "model_state_dict": {"module.a": tensor}}, tmp_path / "w.pth")
    assert torch.equal(weights.read_state_dict(tmp_path / "w.pth")["a"], torch.ones(2))


def test_a_variance_too_large_for_float16_is_read_as_its_largest_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = build("resnet18", seed=1).model.state_dict()
    state["bn1.running_var"][3] = 1e6
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.pth")
    network = build("resnet18", weights_file=tmp_path / "w.pth", freeze_until="none")
    assert (
        "weights: infinite variances in bn1.running_var: too large for float16; read as its largest value, 65504"
    ) in caplog.text
    norm = network.model.get_submodule("bn1")
    variances = norm.get_buffer("running_var")
    assert variances[3] == 65504
    assert torch.equal(variances[4], state["bn1.running_var"][4].half().float())
    network.eval_mode()
    with torch.no_grad():
        assert norm(torch.randn(2, 64, 4, 4))[:, 3].std() > 0
        network.train_mode()
        norm(torch.randn(2, 64, 4, 4))
    assert variances[3] < 65504  # a running mean that is trained comes down from it


@pytest.mark.parametrize(
    ("until", "words"), [("layer9", "such as conv1"), ("layer4.9", "such as conv1"), ("fc", "before the last layer")]
)
def test_a_bad_freeze_until_is_refused(until: str, words: str) -> None:
    with pytest.raises(TrainError, match=f"freeze-until has value '{until}'.*{words}"):
        build("resnet18", freeze_until=until)


def test_dropout_before_the_head_stays_random() -> None:
    network = build("mobilenet_v3_small")
    names = [type(module).__name__ for module in network.head.modules()]
    assert "Dropout" in names


def test_weights_from_a_file_fill_the_backbone_and_not_the_head(tmp_path: Path) -> None:
    source = build("resnet18", classes=5, seed=1).model.state_dict()
    file = tmp_path / "w.pth"
    torch.save(
        {f"module.{name}": tensor.half() if tensor.is_floating_point() else tensor for name, tensor in source.items()},
        file,
    )
    network = build("resnet18", classes=5, weights_file=file, seed=2)
    state = network.model.state_dict()
    assert torch.allclose(state["conv1.weight"], source["conv1.weight"], atol=1e-3)
    assert not torch.allclose(state["fc.weight"], source["fc.weight"], atol=1e-3)
    assert state["conv1.weight"].dtype == torch.float32
    assert network.weights == "file w.pth"


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(build("resnet18").model.state_dict(), file)
    with pytest.raises(
        TrainError,
        match=r"the weights \(file w.pth\) do not fit resnet34: \d+ tensors differ, first layer\S+, which",
    ):
        build("resnet34", weights_file=file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_an_unreadable_weights_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    with pytest.raises(TrainError, match=r"w\.pth could not be read") as raised:
        build("resnet18", weights_file=file)
    assert "\n" not in str(raised.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1/0",))


def test_a_weights_file_is_never_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"conv1.weight": Evil()}, file)
    with pytest.raises(TrainError, match="could not be read"):
        build("resnet18", weights_file=file)


def test_a_weights_file_of_another_kind_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    words = r"weights model.tar.gz could not be read as tensors \(.*, \d+ bytes\): it is an archive: unpack it"
    with pytest.raises(TrainError, match=words):
        weights.read_state_dict(file)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pth")
    with pytest.raises(TrainError, match=r"it holds more than tensors, such as a whole model, .*; expected a file of"):
        weights.read_state_dict(tmp_path / "whole.pth")


def test_weights_whose_names_have_a_prefix_are_told(tmp_path: Path) -> None:
    """As a trainer that wraps the network saves them."""
    file = tmp_path / "w.ckpt"
    torch.save({"state_dict": {f"net.{k}": v for k, v in build("resnet18").model.state_dict().items()}}, file)
    with pytest.raises(TrainError, match=r"with its names \(conv1.weight; the file begins with net.conv1.weight\)$"):
        build("resnet18", weights_file=file)


def test_weights_that_cannot_be_fetched_name_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A closed port of this machine stands for a network that does not reach the host.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(TrainError, match=r"could not be fetched from https://.*--weights FILE.*--weights none"):
        build("resnet18", weights="DEFAULT")


def test_resize_below_crop_is_refused() -> None:
    with pytest.raises(TrainError, match="resize-size has value 32: expected at least the image-size, 64"):
        build("resnet18", resize_size=32)


def test_a_size_whose_resize_is_too_large_is_refused() -> None:
    with pytest.raises(TrainError, match="image-size has value 4096: images would be resized to 4681 pixels, more"):
        builder.preprocessing_of("resnet18", 0, 4096)
    assert builder.preprocessing_of("resnet18", 4096, 4096).resize == 4096
