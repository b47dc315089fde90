import gc
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container_serve import artifact
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.data.files import Files, Split
from container_train.errors import TrainError
from container_train.export import __main__ as exporting
from container_train.export import evaluation, exporter, quantize
from container_train.model import builder
from tests import trees


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    root = trees.fill(tmp_path_factory.mktemp("pictures"), {"train": 4, "valid": 4, "test": 4})
    return exporting.labelled(root, trees.LABELS)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a few layers, which NNCF is done with in a fraction of the time that a whole network takes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2), nn.BatchNorm2d(after), nn.ReLU()]
    small = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)).eval()
    folder = tmp_path_factory.mktemp("exported") / "m"
    exporter.export(
        small, folder, arch="resnet18", classes=trees.LABELS,
        preprocessing=builder.preprocessing_of("resnet18", 64, 64), details={"weights": "none", "best_epoch": 3},
    )  # fmt: skip
    return folder


@pytest.fixture
def exported(once: Path, tmp_path: Path) -> artifact.Artifact:
    return artifact.read(shutil.copytree(once, tmp_path / "m"))


def agreeing(exported: artifact.Artifact, splits: dict[str, Split], precision: str = "fp32") -> dict[str, Split]:
    """valid and test with that for a target which the fp32 graph calls them, so that it is right on all."""
    predictor, result = Predictor(exported), {}
    for name in ("valid", "test"):
        tensors = np.stack([preprocess(path.read_bytes(), exported.preprocessing) for path in splits[name].paths])
        result[name] = replace(splits[name], targets=predictor.probabilities(tensors).argmax(1))
    return result


def test_calibration_is_seeded_and_spread_over_the_classes() -> None:
    targets = np.array([target for target in range(100) for _ in range(10 + target % 5)])
    split = Split("train", Files(Path(), map(str, range(len(targets)))), targets)
    chosen = quantize.calibration(split, 0)
    assert len(chosen) == len(set(chosen)) == quantize.IMAGES
    assert set(Counter(targets[int(str(path))] for path in chosen).values()) == {3}
    assert chosen == quantize.calibration(split, 0)
    assert chosen != quantize.calibration(split, 1)


@pytest.mark.parametrize(("pictures", "wanted"), [(7, 7), (100, 60), (400, 100), (5000, 300)])
def test_small_data_is_calibrated_on_less(pictures: int, wanted: int) -> None:
    split = Split("train", Files(Path(), map(str, range(pictures))), np.array([0] * (pictures - 1) + [1]))
    assert len(quantize.calibration(split, 0)) == wanted


def test_int8_is_served_where_it_is_as_accurate(exported: artifact.Artifact, splits: dict[str, Split]) -> None:
    measured = agreeing(exported, splits)
    choice = quantize.choose(exported, measured, precision="int8", train=splits["train"])
    read = artifact.read(exported.directory, verify=True)
    assert read.precision == choice.artifact.precision == "int8"
    assert read.document["best_epoch"] == 3
    assert read.document["accuracy"] == choice.accuracy
    assert choice.accuracy["fp32"] == {"valid": 1.0, "test": 1.0}
    tensors = np.stack([preprocess(path.read_bytes(), read.preprocessing) for path in splits["test"].paths])
    # What an answer is must not depend on what else is computed at the time, nor on the machine's cores.
    for threads, callers, batch in ((1, 1, 12), (1, 1, 1), (2, 1, 5), (1, 2, 3)):
        predictor = Predictor(read, threads, callers)
        parts = [predictor.probabilities(tensors[i : i + batch]) for i in range(0, len(tensors), batch)]
        whole, served = np.concatenate(parts), choice.served["test"]
        np.testing.assert_array_equal(np.take_along_axis(whole, served.classes, 1), served.probabilities)
        np.testing.assert_array_equal(whole.argmax(1), served.predicted)
    assert not any(path.name.startswith(".") for path in exported.directory.iterdir())


def test_a_signal_afterwards_finds_a_stack(exported: artifact.Artifact, splits: dict[str, Split]) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        quantize.choose(exported, agreeing(exported, splits), precision="auto", train=splits["train"])
        gc.collect()  # what cores there were are gone
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_fp32_stays_where_int8_loses_too_much(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = agreeing(exported, splits)
    before = (exported.directory / "model.bin").read_bytes()
    real = evaluation.evaluate

    def worse(artifacts: list[artifact.Artifact], split: Split) -> evaluation.Evaluated:
        found = real(artifacts, split)
        for made, answers in zip(artifacts, found.answers, strict=True):
            if made.precision == "int8":
                answers.classes[:] = (answers.classes + 1) % 3
        return found

    monkeypatch.setattr(evaluation, "evaluate", worse)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    read = artifact.read(exported.directory, verify=True)
    assert read.precision == choice.artifact.precision == "fp32"
    assert (exported.directory / "model.bin").read_bytes() == before
    notes = read.document["quantization"]
    assert notes["drop"] > 0.5
    assert "points from fp32 on validation" in notes["reason"]
    assert read.document["accuracy"]["fp32"]["test"] == 1
    assert read.document["accuracy"]["int8"]["test"] < 0.5
    assert set(choice.served) == {"valid", "test"}


def test_one_lost_image_of_few_is_too_much(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = agreeing(exported, splits)
    real = evaluation.evaluate

    def unlucky(artifacts: list[artifact.Artifact], split: Split) -> evaluation.Evaluated:
        found = real(artifacts, split)
        for made, answers in zip(artifacts, found.answers, strict=True):
            if made.precision == "int8":
                answers.classes[0] = (answers.classes[0] + 1) % 3
        return found

    monkeypatch.setattr(evaluation, "evaluate", unlucky)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.precision == "fp32"
    notes = choice.artifact.document["quantization"]
    images = len(measured["valid"])
    assert notes["drop"] == notes["standard_error"] == 1 / images
    differ = f"of {images} images {100 / images:.1f} % are predicted differently"
    assert f"points from fp32 on validation ({differ})" in notes["reason"]


def test_a_graph_that_cannot_be_quantised_is_served_as_it_is(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = agreeing(exported, splits)
    monkeypatch.setattr(quantize, "preprocess", lambda *_: 1 / 0)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.precision == "fp32"
    assert "cannot be quantised (ZeroDivisionError" in choice.artifact.document["quantization"]["reason"]
    with pytest.raises(TrainError, match="hyperparameter precision has value 'int8', but the graph cannot"):
        quantize.choose(exported, measured, precision="int8", train=splits["train"])
    assert artifact.read(exported.directory, verify=True).precision == "fp32"


def test_a_picture_that_went_is_no_fault_of_the_graph(
    exported: artifact.Artifact, splits: dict[str, Split], tmp_path: Path
) -> None:
    train = splits["train"]
    gone = replace(train, paths=Files(tmp_path, train.paths.names()))
    for precision in ("auto", "int8"):
        with pytest.raises(TrainError, match=r"^1 of 12 files are not readable images, more than 5%: .*No such file"):
            quantize.choose(exported, agreeing(exported, splits), precision=precision, train=gone)


def with_one_gone(split: Split) -> Split:
    """Each image twice, and one that is not there."""
    paths = Files(split.paths.root, [*split.paths.names(), *split.paths.names(), "01.red/gone.jpg"])
    return replace(split, paths=paths, targets=np.array([*split.targets, *split.targets, 0]))


def test_images_that_cannot_be_read_are_left_out(
    exported: artifact.Artifact, splits: dict[str, Split], caplog: pytest.LogCaptureFixture
) -> None:
    measured = {name: with_one_gone(split) for name, split in agreeing(exported, splits).items()}
    described = {"images": {}, "skipped": 1, "skipped_files": [{"file": "train/a.jpg", "reason": "broken"}]}
    given = replace(exported, document={**exported.document, "data": described})
    choice = quantize.choose(given, measured, precision="int8", train=with_one_gone(splits["train"]))
    assert choice.accuracy["fp32"] == {"valid": 1.0, "test": 1.0}
    assert {name: len(split) for name, split in choice.splits.items()} == {"valid": 24, "test": 24}
    assert list(choice.bad) == ["valid/01.red/gone.jpg", "test/01.red/gone.jpg"]
    data = artifact.read(exported.directory, verify=True).document["data"]
    assert data["skipped"] == 3
    assert [file["file"] for file in data["skipped_files"]] == [
        "test/01.red/gone.jpg",
        "train/a.jpg",
        "valid/01.red/gone.jpg",
    ]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not evaluated: 1 of 25 images of test, which cannot be read" in said
    assert any(words.startswith("not used to calibrate: ") for words in said)


def test_fp32_as_asked_needs_no_pictures(exported: artifact.Artifact, splits: dict[str, Split]) -> None:
    choice = quantize.choose(exported, agreeing(exported, splits), precision="fp32", train=None)
    assert choice.accuracy == {"fp32": {"valid": 1.0, "test": 1.0}}
    assert choice.artifact.document["quantization"] == {"reason": "asked for"}


def test_answers_that_are_not_numbers_are_no_class(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their largest would be the first one: class 0, which a third of the images here are of."""
    measured = agreeing(exported, splits)
    real, broken = evaluation.evaluate, ["int8"]

    def half(artifacts: list[artifact.Artifact], split: Split) -> evaluation.Evaluated:
        found = real(artifacts, split)
        for made, answers in zip(artifacts, found.answers, strict=True):
            if made.precision in broken:
                answers.finite[::2] = False
        return found

    monkeypatch.setattr(evaluation, "evaluate", half)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.precision == "fp32"
    assert choice.accuracy["int8"]["valid"] == 0.5
    with pytest.raises(
        TrainError, match=r"answers \(int8\) to 6 of 12 images of valid are not numbers: .*precision fp32"
    ):
        quantize.choose(exported, measured, precision="int8", train=splits["train"])
    broken.append("fp32")
    with pytest.raises(TrainError, match=r"answers \(fp32\) to 6 of 12 images of valid are not numbers: lower lr$"):
        quantize.choose(exported, measured, precision="fp32", train=None)


def test_nncf_neither_talks_nor_phones_home() -> None:
    program = """
import logging, socket
def refused(*arguments, **named): raise SystemExit(f"network: {arguments}")
socket.socket.connect = socket.getaddrinfo = refused
logging.basicConfig(level=logging.INFO)
import numpy as np
from container_train.export import quantize
nncf = quantize.load_nncf()
import openvino
from openvino import opset13 as ops
picture = ops.parameter([-1, 3, 8, 8], np.float32)
x = ops.convolution(picture, np.ones((4, 3, 3, 3), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])
graph = openvino.Model([ops.reduce_mean(x, np.array([2, 3]), False)], [picture])
with quantize._quiet():
    nncf.quantize(graph, nncf.Dataset([np.random.rand(1, 3, 8, 8).astype("f")] * 4), subset_size=4)
assert "openvino_telemetry" not in nncf.telemetry.__dict__
assert logging.getLoggerClass() is logging.Logger
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
