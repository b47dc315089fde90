"""The folders of a job's images by the names of its channels, and channels that are refused."""

import json
from pathlib import Path

import pytest

from container_train.data import channels
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths


def make(base: Path, *folders: str) -> SageMakerPaths:
    for folder in folders:
        (base / "input" / "data" / folder).mkdir(parents=True)
    return SageMakerPaths(base)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "valid", "test"), ("train", "valid", "test")),
        (("train", "validation", "test"), ("train", "validation", "test")),
        (("training", "val", "testing"), ("training", "val", "testing")),
        (
            ("training/train", "training/validation", "training/test"),
            ("training/train", "training/validation", "training/test"),
        ),
    ],
)
def test_each_split_is_found_by_any_of_its_names(
    tmp_path: Path, folders: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    tree = make(tmp_path, *folders)
    assert tuple(channels.splits(tree).values()) == tuple(tree.channels / name for name in expected)


def test_a_missing_or_a_second_channel_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"^channel train: .* is not there \(found: no channel at all\)"):
        channels.splits(SageMakerPaths(tmp_path))
    tree = make(tmp_path, "train", "valid", "validation", "test")
    with pytest.raises(TrainError, match=r"^channels valid and validation are both taken for valid"):
        channels.splits(tree)


def test_channels_that_hold_nothing_for_the_training(tmp_path: Path) -> None:
    tree = make(tmp_path, "train", "validation", "test", "weights", "features", "code", "sm_drivers", "extra")
    assert channels.unused(tree) == ["extra"]
    other = make(tmp_path / "other", "training/train", "training/valid", "training/test", "training/__MACOSX")
    assert channels.unused(other) == []
    make(tmp_path / "other", "training/more", "code")
    assert channels.unused(other) == ["training/more"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"TrainingInputMode": "Pipe"},
            "has TrainingInputMode Pipe: .*; use File or FastFile",
        ),
        ({"S3DataType": "AugmentedManifestFile"}, "has S3DataType AugmentedManifestFile: .*; use S3Prefix"),
        ({"RecordWrapperType": "RecordIO"}, "has RecordWrapperType RecordIO: .*; use None"),
    ],
)
@pytest.mark.parametrize("channel", ["train", "validation", "weights"])
def test_an_input_mode_that_the_program_has_not_is_named(
    tmp_path: Path, channel: str, config: dict[str, str], words: str
) -> None:
    tree = make(tmp_path, "train", "validation", "test")
    tree.config.mkdir(parents=True)
    good = {"TrainingInputMode": "FastFile", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    (tree.config / "inputdataconfig.json").write_text(
        json.dumps({channel: good, "mine": {"TrainingInputMode": "Pipe"}})
    )
    assert channels.splits(tree)
    (tree.config / "inputdataconfig.json").write_text(json.dumps({channel: good | config}))
    with pytest.raises(TrainError, match=f"^channel {channel} {words}"):
        channels.splits(tree)


def test_the_file_of_weights_is_the_only_one_that_is_no_litter(tmp_path: Path) -> None:
    tree = make(tmp_path, "train")
    assert channels.weights(tree) is None
    folder = make(tmp_path, "weights/deep").channels / "weights"
    with pytest.raises(TrainError, match=r"weights holds 0 files \(none\); expected one state_dict file"):
        channels.weights(tree)
    for name in ("deep/w.pth", "deep/._w.pth", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (folder / name).write_bytes(b"")
    assert channels.weights(tree) == folder / "deep" / "w.pth"
    (folder / "other.pth").write_bytes(b"")
    with pytest.raises(TrainError, match=r"weights holds 2 files \(w.pth, other.pth\)"):
        channels.weights(tree)
