"""Networks of timm: a convolutional one, a transformer, a modern one of both; their images and their weights."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from container_serve.preprocess import to_tensor
from container_train.command_line import parse
from container_train.errors import TrainError
from container_train.model import builder, timm_models, weights

FAMILIES = ["timm/resnet10t", "timm/vit_tiny_patch16_224", "timm/convnext_atto", "timm/mobilenetv3_small_050"]


def build(arch: str, classes: int = 3, **options: Any) -> builder.Network:
    defaults: dict[str, Any] = {"weights": "none", "weights_file": None, "freeze_until": "backbone"}
    return builder.build(arch, classes, **{**defaults, **options})


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_last_layer_alone_is_trained_on_vectors_of_the_frozen_ones(arch: str) -> None:
    network = build(arch, image_size=64)
    assert network.new_layer == {name for name, p in network.model.named_parameters() if p.requires_grad}
    assert {name for name, _ in network.head.named_parameters()} == network.new_layer
    assert network.backbone is not None
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        (features,) = network.backbone(x)
        assert features.ndim == 2
        assert torch.allclose(network.model(x), network.head(features), atol=1e-5)
    shared = {id(p) for p in network.model.parameters()}
    assert all(id(p) in shared for p in network.backbone.parameters())
    assert not network.new_layer & {name.partition(".")[2] for name in network.backbone.state_dict()}


@pytest.mark.parametrize(
    ("arch", "width"),
    [("timm/efficientformer_l1", 448), ("timm/resnetv2_18", 512)],  # two last layers; a convolution
)
def test_other_last_layers_are_cut_off_too(arch: str, width: int) -> None:
    network = build(arch)
    assert network.backbone is not None
    x = torch.rand(2, 3, network.preprocessing.crop, network.preprocessing.crop)
    with torch.inference_mode():
        (features,) = network.backbone(x)
        assert features.shape == (2, width)
        assert torch.allclose(network.model(x), network.head(features), atol=1e-5)


def test_last_layers_with_features_of_their_own_are_not_cut_off() -> None:
    assert build("timm/deit_tiny_distilled_patch16_224").backbone is None


def test_the_features_of_two_architectures_differ_in_their_description() -> None:
    # Their tensors have the same names and shapes: digests of the weights do not tell them apart.
    vit, deit = (build(f"timm/{name}_tiny_patch16_224").backbone for name in ("vit", "deit"))
    assert vit is not None
    assert deit is not None
    assert vit.code != deit.code


def test_freeze_until_names_a_module_and_what_follows_is_trained() -> None:
    network = build("timm/convnext_atto", image_size=64, freeze_until="stages.2")
    trained = {".".join(name.split(".")[:2]) for name, p in network.model.named_parameters() if p.requires_grad}
    assert trained == {"stages.3", "head.norm", "head.fc"}
    assert network.backbone is None
    with pytest.raises(TrainError, match=r"freeze-until has value 'stages.9'.*such as stem, stages"):
        build("timm/convnext_atto", freeze_until="stages.9")


def test_batch_norms_that_are_trained_follow_the_mode() -> None:
    network = build("timm/resnet10t", image_size=64, freeze_until="layer3")
    network.train_mode()
    assert network.model.get_submodule("layer4.0.bn1").training
    assert not network.model.get_submodule("layer3.0.bn1").training


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto", "inception_v3"])
def test_an_image_is_prepared_as_timm_does_it(name: str) -> None:
    from timm.data import create_transform, resolve_data_config

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (301, 427, 3), dtype=np.uint8))
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = create_transform(**config)(image).numpy()
    ours = to_tensor(image, builder.preprocessing_of(f"timm/{name}", 0, 0))
    assert np.array_equal(ours, theirs)


def test_sizes_that_are_given_keep_timm_s_share_of_the_crop() -> None:
    assert builder.preprocessing_of("timm/vit_tiny_patch16_224", 0, 0).resize == 248  # 224 of 0.9
    given = builder.preprocessing_of("timm/vit_tiny_patch16_224", 0, 384)
    assert (given.resize, given.crop) == (426, 384)
    assert builder.preprocessing_of("timm/vit_tiny_patch16_224", 400, 384).resize == 400


def test_every_model_has_a_preprocessing_or_a_line_that_says_why_not() -> None:
    names = timm.list_models()
    refused = []
    for name in names:
        try:
            builder.preprocessing_of(f"timm/{name}", 0, 0)
        except TrainError as error:
            refused.append(str(error))
    assert len(names) > 1000
    assert 0 < len(refused) < len(names) / 10, refused
    assert all("this program makes squares from the centre" in line for line in refused), refused


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("timm/convnext_tini", r"no such model: did you mean timm/convnext_tiny\?$"),
        (
            "timm/qqqqqqqqqqqqq",
            r"has value 'timm/qqqqqqqqqqqqq': timm [\d.]+ has no such model: timm.list_models\(\) in Python lists all$",
        ),
        ("timm/resnet50.nope", r"no such weights; expected timm/resnet50 or timm/resnet50.a1_in1k or .* \.\.\.$"),
        ("timm/dm_nfnet_f0", "images of 192 x 192 pixels cut by 'squash'"),
    ],
)
def test_a_model_that_there_is_not_is_one_line(arch: str, words: str) -> None:
    with pytest.raises(TrainError, match=words):
        build(arch)


@pytest.mark.parametrize("arch", ["timm/", "timm/../x", "timm/a b", "timm/x.y.z", "TIMM/resnet10t", "timm/hf-hub:a"])
def test_other_names_are_refused_without_timm(arch: str) -> None:
    with pytest.raises(TrainError, match=r"expected a classification architecture of torchvision such as .* or timm/"):
        parse(["--arch", arch])


def test_the_tag_belongs_to_the_architecture() -> None:
    assert parse(["--arch", "timm/resnet50.a1_in1k", "--freeze-until", "layer3"]).arch == "timm/resnet50.a1_in1k"
    with pytest.raises(TrainError, match=r"weights has value 'a1_in1k': expected DEFAULT, none \(others: --arch timm/"):
        parse(["--arch", "timm/resnet50", "--weights", "a1_in1k"])


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_file_of_safetensors_fills_all_but_the_last_layer(arch: str, tmp_path: Path) -> None:
    source = build(arch, classes=7, seed=1).model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in source.items()}, tmp_path / "model.safetensors")
    network = build(arch, weights_file=tmp_path / "model.safetensors", seed=2)
    state = network.model.state_dict()
    assert network.weights == "file model.safetensors"
    for name in state.keys() - network.new_layer:
        assert torch.equal(state[name], source[name]), name


def test_a_file_with_the_new_layer_s_shape_still_leaves_it_new(tmp_path: Path) -> None:
    source = build("timm/resnet10t", classes=1000, seed=1).model.state_dict()
    torch.save(source, tmp_path / "w.pth")
    state = build("timm/resnet10t", classes=1000, weights_file=tmp_path / "w.pth", seed=2).model.state_dict()
    assert torch.equal(state["conv1.0.weight"], source["conv1.0.weight"])
    assert not torch.equal(state["fc.weight"], source["fc.weight"])


def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    source = build("timm/vit_tiny_patch16_224", seed=1).model.state_dict()
    torch.save(source, tmp_path / "w.pth")
    network = build("timm/vit_tiny_patch16_224", weights_file=tmp_path / "w.pth", image_size=320)
    assert network.preprocessing.crop == 320
    state = network.model.state_dict()
    assert state["pos_embed"].shape == (1, 1 + 20 * 20, 192)
    assert torch.equal(state["pos_embed"][:, 0], source["pos_embed"][:, 0])
    assert torch.equal(state["blocks.3.attn.qkv.weight"], source["blocks.3.attn.qkv.weight"])


def test_weights_without_a_last_layer_are_taken(tmp_path: Path) -> None:
    # As DINO's are published: of a network without classes.
    source = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=98).state_dict()
    torch.save(source, tmp_path / "w.pth")
    network = build("timm/vit_small_patch14_dinov2", weights_file=tmp_path / "w.pth", image_size=98)
    state = network.model.state_dict()
    assert source.keys() == state.keys() - network.new_layer
    assert all(torch.equal(state[name], tensor) for name, tensor in source.items())


def test_a_size_that_a_network_cannot_take_is_one_line() -> None:
    with pytest.raises(TrainError, match=r"image-size has value 8: timm/vit_tiny_patch16_224 does not take .* is 224,"):
        build("timm/vit_tiny_patch16_224", image_size=8)


@pytest.mark.parametrize("other", ["timm/resnet18", "timm/vit_tiny_patch16_224"])
def test_the_weights_of_another_architecture_are_refused(other: str, tmp_path: Path) -> None:
    torch.save(build("timm/resnet10t").model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(TrainError, match=rf"the weights \(file w.pth\) do not fit {other}: \d+ tensors differ, first"):
        build(other, weights_file=tmp_path / "w.pth")


def test_a_damaged_file_of_safetensors_is_one_line(tmp_path: Path) -> None:
    save_file(build("timm/resnet10t").model.state_dict(), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    for damaged in (b"", b"not a file of tensors", content[:-100]):
        (tmp_path / "w.safetensors").write_bytes(damaged)
        with pytest.raises(TrainError, match=r"^weights w\.safetensors could not be read as tensors [^\n]*$"):
            weights.read_state_dict(tmp_path / "w.safetensors")


class Hub(http.server.BaseHTTPRequestHandler):
    """The routes of the hub that its client asks for one public file of a repository."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET" and content is not None:
            self.wfile.write(content)

    do_GET = do_HEAD

    def log_message(self, *_: Any) -> None:
        pass


def hub_at(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT and HF_HUB_CACHE do it, which are read when the hub's client is imported."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    monkeypatch.setattr(Hub, "files", {})
    monkeypatch.setattr(Hub, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub_at(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
        yield Hub
        server.shutdown()


def test_weights_come_from_the_hub_once(hub: type[Hub], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = build("timm/resnet10t", classes=1000, seed=1).model.state_dict()
    save_file(source, tmp_path / "w.safetensors")
    hub.files["/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    for _ in range(2):
        network = build("timm/resnet10t", weights="DEFAULT")
        assert network.weights == "timm c3_in1k"
        assert torch.equal(network.model.state_dict()["conv1.0.weight"], source["conv1.0.weight"])
    assert len([line for line in hub.asked if line.startswith("GET /timm/")]) == 1
    assert "weights: c3_in1k of timm, licence: apache-2.0" in caplog.text
    assert {record.name.partition(".")[0] for record in caplog.records} == {"container_train"}


def test_weights_that_the_hub_does_not_have_name_the_ways_out(hub: type[Hub]) -> None:
    ways = r"resolve/main/model.safetensors \(.*404.*\): pass a file \(run.sh: --weights FILE.*--weights none$"
    with pytest.raises(
        TrainError, match=rf"^the ImageNet weights of timm/resnet10t could not be fetched from .*{ways}"
    ):
        build("timm/resnet10t", weights="DEFAULT")
    assert len(hub.asked) == 1  # its client would try again for minutes


def test_a_hub_that_cannot_be_reached_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_at("http://127.0.0.1:9", tmp_path, monkeypatch)
    with pytest.raises(TrainError, match=r"could not be fetched from http://127.*refused.*--weights FILE"):
        build("timm/resnet10t", weights="DEFAULT")


def test_a_model_whose_weights_are_not_on_the_hub_is_one_line() -> None:
    with pytest.raises(TrainError, match="timm has no weights of timm/gcvit_tiny on its hub: give another tag"):
        timm_models.url("timm/gcvit_tiny")
