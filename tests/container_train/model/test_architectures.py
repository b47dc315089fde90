"""The table is what torchvision says; the whole of it, which takes half a minute, in the long run."""

import json

import pytest
import torchvision

from container_train.model import architectures
from container_train.model.builder import freezable


def test_the_architectures_and_weights_are_torchvision_s() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert list(architectures.known()) == names
    for name in names:
        weights = torchvision.models.get_model_weights(name)
        found = architectures.known()[name].weights
        assert set(found) == {member.name for member in weights}
        assert {architectures.weights_url(name, member.name) for member in weights} == {m.url for m in weights}
        assert architectures.weights_url(name, "DEFAULT") == weights.DEFAULT.url
        assert architectures.weights_url(name, "None") is None


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "mobilenet_v3_small", "googlenet", "regnet_y_400mf"])
def test_the_modules_are_torchvision_s(name: str) -> None:
    names = freezable(name)
    assert architectures.known()[name].modules == tuple(module for module in names if "." not in module)


def from_torchvision() -> str:
    """Return the table's text, one line per architecture."""
    lines = []
    for arch in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(arch)
        files = {member.name: member.url.removeprefix(architectures.HUB) for member in (weights.DEFAULT, *weights)}
        modules = [name for name in freezable(arch) if "." not in name]
        crop = weights.DEFAULT.transforms().crop_size[0]
        lines.append(f"{json.dumps(arch)}: {json.dumps({'weights': files, 'modules': modules, 'crop': crop})}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


@pytest.mark.full
def test_the_whole_table_is_torchvision_s() -> None:
    assert json.loads(from_torchvision()) == json.loads(architectures.FILE.read_text())


def test_modules_end_before_the_last_layer() -> None:
    assert freezable("mobilenet_v3_small")[-2:] == ["features.12.1", "classifier.0"]
    names = freezable("resnet18")
    assert names[0] == "conv1"
    assert {"layer4", "layer4.1", "layer4.1.conv2"} < set(names)
    assert not {"fc", "layer9", ""} & set(names)


if __name__ == "__main__":  # after another version of torchvision was locked
    architectures.FILE.write_text(from_torchvision())
