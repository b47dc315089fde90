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
from container_train.training import metrics
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


def copies(split: Split, times: int) -> Split:
    """As many images that a decision can be based on."""
    return split.subset(split.name, np.tile(np.arange(len(split)), times))


def missing(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """The int8 graph says something else to the first `lost` images of each split."""
    real = evaluation.evaluate

    def unlucky(artifacts: list[artifact.Artifact], split: Split) -> evaluation.Evaluated:
        found = real(artifacts[:1], split)
        fp32 = found.answers[0]
        classes = fp32.classes.copy()
        classes[:lost] = (classes[:lost] + 1) % 3
        return replace(found, answers=[fp32, replace(fp32, classes=classes)][: len(artifacts)])

    monkeypatch.setattr(evaluation, "evaluate", unlucky)


def test_calibration_is_seeded_and_spread_over_the_classes() -> None:
    targets = np.array([target for target in range(100) for _ in range(10 + target % 5)])
    split = Split("train", Files(Path(), map(str, range(len(targets)))), targets)
    chosen = quantize.calibration(split, 0)
    names = list(chosen.paths.names())
    assert len(names) == len(set(names)) == quantize.IMAGES
    assert set(Counter(targets[int(name)] for name in names).values()) == {3}
    assert names == list(quantize.calibration(split, 0).paths.names())
    assert names != list(quantize.calibration(split, 1).paths.names())


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
        quantize.choose(exported, agreeing(exported, splits), precision="int8", train=splits["train"])
        gc.collect()  # what cores there were are gone
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


@pytest.mark.parametrize(
    ("times", "lost", "served"),
    [
        (17, 0, "int8"),  # 204 images, no difference
        (17, 1, "int8"),  # 0.49 points lost, and 1.3 are excluded
        (17, 2, "fp32"),  # 0.98 points lost
        (17, 100, "fp32"),
        (16, 0, "fp32"),  # 192 images are too few
    ],
)
def test_a_paired_test_of_enough_images_decides(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch,
    times: int, lost: int, served: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    agreed = agreeing(exported, splits)
    measured = {"valid": copies(agreed["valid"], times), "test": agreed["test"]}
    before = (exported.directory / "model.bin").read_bytes()
    missing(monkeypatch, lost)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    read = artifact.read(exported.directory, verify=True)
    assert read.precision == choice.artifact.precision == served
    assert ((exported.directory / "model.bin").read_bytes() == before) == (served == "fp32")
    notes, images = read.document["quantization"], 12 * times
    assert f"served: {served}, {notes['reason']}" in caplog.text
    assert (
        f"fp32: valid 100.0 % of {images} images (98 to 100 %), test 100.0 % of 12 images (76 to 100 %)" in caplog.text
    )
    if images < quantize.FEWEST_TO_DECIDE:
        assert notes["reason"].startswith("192 validation images are too few to tell")
        assert "int8: calibrating" not in caplog.text, "nothing is quantised that cannot be served"
        assert choice.accuracy.keys() == {"fp32"}
        return
    assert notes["drop"] == lost / images
    assert notes["standard_error"] == pytest.approx(lost**0.5 / images)
    worst = -100 * (notes["drop"] + 1.645 * notes["standard_error"])
    assert f"int8 is {0 - 100 * lost / images:+.2f} points from fp32 on 204 validation images" in notes["reason"]
    assert f"at worst {0 + worst:+.2f} (paired test, 95 %); -0.5 and -2.0 are allowed" in notes["reason"]


def test_differences_that_cancel_out_are_no_proof(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many images won as lost: nothing is lost as counted, and the true loss may be large all the same."""
    valid = copies(agreeing(exported, splits)["valid"], 17)
    wrong = valid.targets.copy()
    wrong[:12] = (wrong[:12] + 1) % 3
    measured = {"valid": replace(valid, targets=wrong)}
    real = evaluation.evaluate

    def swapped(artifacts: list[artifact.Artifact], split: Split) -> evaluation.Evaluated:
        found = real(artifacts[:1], split)
        fp32 = found.answers[0]
        classes = fp32.classes.copy()
        classes[:24] = (classes[:24] + 1) % 3
        return replace(found, answers=[fp32, replace(fp32, classes=classes)])

    monkeypatch.setattr(evaluation, "evaluate", swapped)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.document["quantization"]["drop"] == 0
    assert choice.artifact.precision == "fp32"


def test_int8_as_asked_is_served_whatever_it_loses(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch, 1)
    choice = quantize.choose(exported, agreeing(exported, splits), precision="int8", train=splits["train"])
    notes = choice.artifact.document["quantization"]
    assert choice.artifact.precision == "int8"
    assert notes["drop"] == notes["standard_error"] == 1 / 12
    assert notes["reason"].endswith("-0.5 and -2.0 are allowed, but it was asked for")
    assert choice.artifact.document["accuracy_interval"]["int8"]["valid"] == [
        pytest.approx(0.646, abs=1e-3), pytest.approx(0.985, abs=1e-3)
    ]  # fmt: skip


def test_a_graph_that_cannot_be_quantised_is_served_as_it_is(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = agreeing(exported, splits)
    monkeypatch.setattr(quantize, "FEWEST_TO_DECIDE", 12)
    monkeypatch.setattr(quantize, "preprocess", lambda *_: 1 / 0)
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.precision == "fp32"
    assert "cannot be quantised (ZeroDivisionError" in choice.artifact.document["quantization"]["reason"]
    with pytest.raises(TrainError, match="hyperparameter precision has value 'int8', but the graph cannot"):
        quantize.choose(exported, measured, precision="int8", train=splits["train"])
    assert artifact.read(exported.directory, verify=True).precision == "fp32"


def test_a_picture_that_went_is_no_fault_of_the_graph(
    exported: artifact.Artifact, splits: dict[str, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "FEWEST_TO_DECIDE", 12)
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
    described = {
        "images": {"train": 25, "valid": 25, "test": 25},
        "skipped": 1,
        "skipped_files": [{"file": "train/a.jpg", "reason": "broken"}],
    }
    given = replace(exported, document={**exported.document, "data": described})
    choice = quantize.choose(given, measured, precision="int8", train=with_one_gone(splits["train"]))
    assert choice.accuracy["fp32"] == {"valid": 1.0, "test": 1.0}
    assert {name: len(split) for name, split in choice.splits.items()} == {"valid": 24, "test": 24}
    assert list(choice.bad) == ["valid/01.red/gone.jpg", "test/01.red/gone.jpg"]
    data = artifact.read(exported.directory, verify=True).document["data"]
    assert (data["skipped"], data["images"]) == (3, {"train": 25, "valid": 24, "test": 24})
    assert [file["file"] for file in data["skipped_files"]] == [
        "test/01.red/gone.jpg",
        "train/a.jpg",
        "valid/01.red/gone.jpg",
    ]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not evaluated: 1 of 25 images of test, which cannot be read" in said
    missing = "No such file or directory"
    assert f"skipped valid/01.red/gone.jpg: {missing}" in said, "no path of the job's own"
    assert f"not used to calibrate: train/01.red/gone.jpg: {missing}" in said


def test_images_that_cannot_be_read_are_not_counted_among_the_fewest(
    exported: artifact.Artifact, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "FEWEST_TO_DECIDE", 25)
    missing(monkeypatch, 0)
    measured = {"valid": with_one_gone(agreeing(exported, splits)["valid"])}
    choice = quantize.choose(exported, measured, precision="auto", train=splits["train"])
    assert choice.artifact.precision == "fp32"
    assert choice.artifact.document["quantization"]["reason"].startswith("24 validation images are too few to tell")
    assert choice.artifact.document["accuracy_interval"]["fp32"]["valid"] == list(metrics.interval(1.0, 24))


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
    monkeypatch.setattr(quantize, "FEWEST_TO_DECIDE", 12)
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
