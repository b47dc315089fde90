"""timm's networks go all the way: weights of the channel, training, int8, export, the server's answers."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from container_serve import artifact
from tests import trees
from tests.conftest import both_engines_in_full
from tests.contract.serving import serving
from tests.contract.training import training


# A convolutional network with frozen layers, a modern one of which all layers are trained, a transformer of a fixed
# size that gets another one.
@pytest.mark.parametrize(
    ("arch", "settings", "resize"),
    [
        ("timm/mobilenetv3_small_050", {"image-size": "64"}, 73),
        ("timm/convnext_atto.d2_in1k", {"image-size": "64", "freeze-until": "none", "lr": "0.001"}, 73),
        ("timm/vit_tiny_patch16_224", {"image-size": "96", "augment": "crop", "lr": "0.003"}, 106),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@both_engines_in_full
def test_a_network_of_timm_is_trained_quantised_and_served(
    kind: str, arch: str, settings: dict[str, str], resize: int, tmp_path: Path
) -> None:
    given = {"arch": arch, "epochs": "3", "lr": "0.01", "precision": "int8", "amp": "auto", "debug": "on", **settings}
    base = trees.tree(tmp_path, {**given, "weights": "DEFAULT"})
    weights = base / "input" / "data" / "weights" / "model.safetensors"
    weights.parent.mkdir()
    save_file(timm.create_model(arch.removeprefix("timm/")).state_dict(), weights)  # of 1000 classes, and 224 pixels
    with training(kind, base) as job:
        assert job.wait() == 0, job.text()
    assert "the last layer is new; of file model.safetensors" in job.text()
    assert ("frozen layers run once per image" in job.text()) == ("freeze-until" not in settings)
    made = artifact.read(base / "model", verify=True)
    document = made.document
    assert (made.architecture, made.precision, document["weights"]) == (arch, "int8", "file model.safetensors")
    assert (made.preprocessing.crop, made.preprocessing.resize) == (int(settings["image-size"]), resize)
    metrics = json.loads((base / "output" / "data" / "metrics.json").read_text())
    assert metrics["test_accuracy"] == document["accuracy"]["int8"]["test"]
    picture = base / "input" / "data" / "test" / "01.red" / "000.jpg"
    with serving(base / "model", tmp_path / "server", kind=kind) as server:
        answer = server.invoke(picture.read_bytes())
    assert answer.status == 200, answer.body
    assert {row["label"] for row in answer.json()["predictions"]} == set(trees.LABELS)
    assert answer.json()["model"]["architecture"] == arch


def test_a_model_that_timm_does_not_have_fails_before_the_images_are_read(tmp_path: Path) -> None:
    with training("process", trees.tree(tmp_path, {"arch": "timm/convnext_tini"})) as job:
        assert job.wait() == 1
    expected = "hyperparameter arch has value 'timm/convnext_tini': timm "
    assert job.failure().startswith(expected)
    assert "did you mean timm/convnext_tiny" in job.failure()
    assert "hyperparameters:" not in job.text()
