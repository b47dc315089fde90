import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from container_serve import artifact
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.errors import Stopped, TrainError
from container_train.export import __main__ as exporting
from container_train.export import exporter
from container_train.model import builder
from tests import trees


@pytest.fixture(scope="module")
def network() -> builder.Network:
    return builder.build(
        "resnet18", 3, weights="none", weights_file=None, freeze_until="backbone", image_size=64, resize_size=64
    )


def write(network: builder.Network, folder: Path) -> artifact.Artifact:
    return exporter.export(
        network.model, folder, arch="resnet18", classes=trees.LABELS, preprocessing=network.preprocessing,
        details={"weights": "none"},
    )  # fmt: skip


def test_the_artifact_is_whole_and_computes_what_was_trained(network: builder.Network, tmp_path: Path) -> None:
    write(network, tmp_path / "m")
    read = artifact.read(tmp_path / "m", verify=True)
    assert (read.classes, read.architecture, read.precision) == (trees.LABELS, "resnet18", "fp32")
    assert set(read.document["files"]) == {"model.pth", "model.xml", "model.bin"}
    state = torch.load(tmp_path / "m" / "model.pth", weights_only=True)
    network.model.load_state_dict(state)
    trees.picture(tmp_path / "a.jpg", (200, 30, 30), seed=1)
    tensor = preprocess((tmp_path / "a.jpg").read_bytes(), read.preprocessing)
    with torch.inference_mode():
        expected = network.model.eval()(torch.from_numpy(tensor)[None]).softmax(1).numpy()
    assert np.allclose(Predictor(read).probabilities(tensor[None]), expected, atol=1e-4)
    assert not any(path.name.startswith(".") for path in (tmp_path / "m").iterdir())


class Lying(nn.Module):
    """Computes something else once it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = 1.0 if torch.jit._trace.is_tracing() else 30.0
        logits: torch.Tensor = self.fc(x.mean((2, 3))) * factor
        return logits


def test_a_graph_that_computes_something_else_is_refused(network: builder.Network, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="other probabilities than the trained model"):
        exporter.export(
            Lying(), tmp_path / "m", arch="lying", classes=trees.LABELS, preprocessing=network.preprocessing, details={}
        )
    assert not (tmp_path / "m" / artifact.MODEL_JSON).exists(), "a server would serve it"


def test_a_full_disk_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        def save_model(self, *_: object, **__: object) -> None:
            raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(exporter, "load_openvino", Full)
    with pytest.raises(OSError, match="No space left on device"):
        exporter.save_graph(None, tmp_path / "model.xml")


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "container_train.export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return what it says as it ends, in this process: it has torch already."""
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    with pytest.raises(SystemExit) as raised:
        exporting.main()
    assert isinstance(raised.value.code, str)  # Python prints it, and ends with code 1
    return raised.value.code


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        (
            "--arch",
            "resnt50",
            r"--arch: has value 'resnt50': expected .*: did you mean resnet50\?",
        ),
        ("--image-size", "big", "--image-size: has value 'big': expected an integer from 0 to 4096"),
    ],
)
def test_a_wrong_flag_is_told_with_its_value(
    flag: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export", "--weights", "w", "--classes", "c", "--out", "o", flag, value])
    with pytest.raises(SystemExit):
        exporting.main()
    assert re.search(words, capsys.readouterr().err)


def test_anybody_s_checkpoint_is_quantised_on_pictures(
    network: builder.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(network.model.state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    fixed = [
        "--weights", str(tmp_path / "w.pth"), "--classes", str(tmp_path / "classes.txt"), "--arch", "resnet18",
        "--out", str(tmp_path / "m"), "--image-size", "64", "--resize-size", "64", "--precision", "int8",
    ]  # fmt: skip
    assert "--precision int8 needs --calibration DIR" in refused(monkeypatch, *fixed)
    gone, file = tmp_path / "gone", tmp_path / "w.pth"
    assert refused(monkeypatch, *fixed, "--calibration", str(gone)) == f"export: --calibration {gone}: no such folder"
    assert refused(monkeypatch, *fixed, "--calibration", str(file)) == f"export: --calibration {file}: not a folder"
    assert refused(monkeypatch, *fixed, "--out", str(file)) == f"export: --out {file}: not a folder"
    for flag in ("--weights", "--classes"):
        assert refused(monkeypatch, *fixed, flag, str(gone)) == f"export: {flag} {gone}: no such file"
        assert refused(monkeypatch, *fixed, flag, str(tmp_path)) == f"export: {flag} {tmp_path}: not a file"
    pictures = trees.fill(tmp_path / "data") / "train"
    for folder in pictures.iterdir():
        (folder / "cut.jpg").write_bytes((folder / "000.jpg").read_bytes()[:300])
    done = program(*fixed, "--calibration", str(pictures))
    assert done.returncode == 0, done.stderr
    assert f"skipped {pictures / '01.red' / 'cut.jpg'}: " in done.stderr
    read = artifact.read(tmp_path / "m", verify=True)
    assert read.precision == "int8"
    assert read.document["accuracy"].keys() == {"fp32", "int8"}
    assert read.document["accuracy"]["int8"].keys() == {"valid"}
    assert read.document["quantization"]["calibration"] == {"images": 15, "split": "train", "seed": 0}
    assert (tmp_path / "m" / "model.bin").stat().st_size < (tmp_path / "m" / "model.pth").stat().st_size / 3


def test_pictures_of_class_folders_or_of_splits(tmp_path: Path) -> None:
    root = trees.fill(tmp_path / "data")
    splits = exporting.labelled(root, trees.LABELS)
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert set(splits["valid"].targets) == {0, 1, 2}
    halves = exporting.labelled(root / "train", trees.LABELS)
    assert {name: len(split) for name, split in halves.items()} == {"train": 15, "valid": 15}
    assert not set(halves["train"].paths) & set(halves["valid"].paths)
    assert [path.parent.name for path in halves["valid"].paths[::5]] == ["01.red", "02.green", "10.blue"]
    with pytest.raises(TrainError, match=r"holds the folder '01\.red', which is none of the classes"):
        exporting.labelled(root, ("a", "b"))
    (tmp_path / "none").mkdir()
    with pytest.raises(TrainError, match="holds no class folders"):
        exporting.labelled(tmp_path / "none", trees.LABELS)


def test_anybody_s_checkpoint_becomes_an_artifact(
    network: builder.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(network.model.state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("01.red\n02.green\n10.blue\n")
    monkeypatch.setattr(sys, "argv", [
        "export", "--weights", str(tmp_path / "w.pth"), "--classes", str(tmp_path / "classes.txt"),
        "--arch", "resnet18", "--out", str(tmp_path / "m"),
    ])  # fmt: skip
    exporting.main()
    read = artifact.read(tmp_path / "m", verify=True)
    assert read.classes == trees.LABELS
    assert read.preprocessing.crop == 224
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    said = program(
        "--weights", str(tmp_path / "w.pth"), "--classes", str(tmp_path / "two.txt"), "--arch", "resnet18",
        "--out", str(tmp_path / "n"),
    )  # fmt: skip
    assert said.returncode == 1
    last = said.stderr.strip().splitlines()[-1]
    assert "two.txt has 2 labels, " in last
    assert "w.pth has 3 outputs (fc.bias)" in last
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "n").exists()


def test_a_checkpoint_of_timm_becomes_an_artifact_for_images_of_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    fixed = ["--weights", str(tmp_path / "w.safetensors"), "--arch", "timm/vit_tiny_patch16_224", "--image-size", "96"]
    monkeypatch.setattr(
        sys, "argv", ["export", *fixed, "--classes", str(tmp_path / "classes.txt"), "--out", str(tmp_path / "m")]
    )
    exporting.main()
    read = artifact.read(tmp_path / "m", verify=True)
    assert read.architecture == "timm/vit_tiny_patch16_224"
    assert (read.preprocessing.crop, read.preprocessing.mean) == (96, (0.5, 0.5, 0.5))
    said = refused(monkeypatch, *fixed, "--classes", str(tmp_path / "two.txt"), "--out", str(tmp_path / "n"))
    assert "w.safetensors has 3 outputs (head.bias)" in said


def test_labels_are_read_as_windows_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes("\ufeffcafe\u0301\r\nb\r\nc\r\n".encode())
    assert exporting._labels(file) == ("caf\u00e9", "b", "c")
    file.write_text("a\tb\nc\n")
    with pytest.raises(TrainError, match=r"the label 'a\\tb' has a control character"):
        exporting._labels(file)
    file.write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(TrainError, match="expected UTF-8 text, a label per line"):
        exporting._labels(file)


def test_calibration_takes_the_images_that_training_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = trees.fill(tmp_path / "data") / "train"
    (root / "01.red" / "000.jpg").rename(root / "01.red" / "noext")
    (root / "01.red" / "Thumbs.db").write_bytes(b"")
    (root / "01.red" / "notes.txt").write_text("")
    (root / "__MACOSX").mkdir()
    (root / "10.blue").rename(root / "blue")
    splits = exporting.labelled(root, trees.LABELS)
    assert {name: len(split) for name, split in splits.items()} == {"train": 15, "valid": 15}
    assert [record.message for record in caplog.records] == [
        f"{root}: not used: 1 file (01.red/notes.txt), no images of a kind that is read"
    ]


@pytest.mark.parametrize(("error", "stays"), [(TrainError("a picture went"), False), (Stopped("in evaluate"), True)])
def test_a_model_that_could_not_be_measured_is_no_model(error: BaseException, stays: bool, tmp_path: Path) -> None:
    (tmp_path / artifact.MODEL_JSON).write_text("{}")
    with pytest.raises(type(error)), exporter.withdrawn_on_error(tmp_path):
        raise error
    assert (tmp_path / artifact.MODEL_JSON).exists() == stays
