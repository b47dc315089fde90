import gc
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps
from torchvision.transforms import v2

from container_serve.picture import decode
from container_serve.preprocess import Preprocessing, preprocess, to_tensor
from container_train import data, decoding
from container_train.errors import TrainError
from container_train.tree import Tree
from tests import trees

SPEC = Preprocessing(resize=64, crop=56, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), interpolation="bilinear")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    trees.fill(tmp_path / "input" / "data")
    return Tree(tmp_path)


def test_labels_lose_their_number_and_keep_numeric_order(tree: Tree) -> None:
    found = data.read(tree)
    assert found.classes == trees.LABELS  # 10.blue after 02.green
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert found.splits["test"].targets == (0,) * 4 + (1,) * 4 + (2,) * 4


def test_one_channel_with_three_folders_is_the_same_data(tmp_path: Path, tree: Tree) -> None:
    other = tmp_path / "other"
    trees.fill(other / "input" / "data" / "training")
    assert data.read(Tree(other)).fingerprint == data.read(tree).fingerprint


def test_the_fingerprint_follows_the_content(tree: Tree) -> None:
    before = data.read(tree).fingerprint
    trees.picture(tree.channels / "train" / "01.red" / "000.jpg", (1, 2, 3), seed=9)
    assert data.read(tree).fingerprint != before


def test_bad_files_are_skipped_named_and_counted(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    cut = tree.channels / "train" / "01.red" / "000.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    (tree.channels / "test" / "02.green" / "notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        found = data.read(tree)
    assert set(found.bad) == {"train/01.red/000.jpg", "test/02.green/notes.txt"}
    assert (len(found.splits["train"]), len(found.splits["test"])) == (29, 12)
    assert "train/01.red/000.jpg" in caplog.text
    described = found.describe()
    assert described["skipped"] == 2


def test_a_link_to_nothing_is_named(tree: Tree) -> None:
    (tree.channels / "train" / "01.red" / "link.jpg").symlink_to("nowhere.jpg")
    found = data.read(tree)
    assert "No such file" in found.bad["train/01.red/link.jpg"]
    assert len(found.splits["train"]) == 30


def test_a_folder_that_may_not_be_read_is_named(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tree.channels / "train" / "01.red" / "more"
    inner.mkdir()
    look = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path) == inner:  # root may read all
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(TrainError, match=rf"the folder {inner} cannot be read \(Permission denied\)"):
        data.read(tree)


@pytest.mark.parametrize("name", [b"01.red/caf\xe9.jpg", b"04.caf\xe9/a.jpg"])
def test_a_name_that_is_not_utf_8_is_refused(tree: Tree, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tree.channels / "train") + b"/" + name))
    trees.picture(path, (1, 2, 3), seed=1)
    with pytest.raises(TrainError, match=r"channel train: the name b'.*caf\\xe9.*' is not UTF-8: rename it"):
        data.read(tree)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_lost_while_training_is_named(
    tree: Tree, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long the loader waits for its process when nobody has it any more.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    split = data.read(tree).splits["train"]
    lost = split.paths[3]
    lost.write_bytes(b"no picture any more")
    loader = decoding.loader(data.Pictures(split, SPEC), 8, workers, torch.device("cpu"))
    with pytest.raises(TrainError) as raised:
        list(loader)
    words = str(raised.value)
    assert words.startswith(f"{lost} could be read when the job began, and cannot any more (")
    assert "\n" not in words
    del loader, raised
    gc.collect()


def test_more_than_a_twentieth_bad_stops_the_job(tree: Tree) -> None:
    for index in range(3):
        (tree.channels / "train" / "01.red" / f"{index:03}.jpg").write_bytes(b"")
    with pytest.raises(
        TrainError, match=r"3 of 54 files are not readable pictures, more than 5%.*train/01.red/000.jpg"
    ):
        data.read(tree)


@pytest.mark.parametrize("missing", ["train", "valid", "test"])
def test_a_missing_channel_is_named(tree: Tree, missing: str) -> None:
    (tree.channels / missing).rename(tree.base / "elsewhere")
    with pytest.raises(TrainError, match=rf"^channel {missing}: .* is not there \(found: "):
        data.read(tree)


def test_an_empty_class_is_named(tree: Tree) -> None:
    (tree.channels / "train" / "11.empty").mkdir()
    with pytest.raises(TrainError, match=r"channel train: class folder '11.empty' has no readable picture"):
        data.read(tree)


def test_a_class_only_in_valid_is_named(tree: Tree) -> None:
    trees.picture(tree.channels / "valid" / "12.new" / "a.jpg", (9, 9, 9), seed=1)
    with pytest.raises(TrainError, match=r"channel valid: class '12.new' is not in channel train"):
        data.read(tree)


def test_two_folders_of_one_label_are_refused(tree: Tree) -> None:
    trees.picture(tree.channels / "train" / "11.red" / "a.jpg", (9, 9, 9), seed=1)
    with pytest.raises(TrainError, match=r"folders 01.red and 11.red are both class 'red'"):
        data.read(tree)


def test_training_evaluates_the_tensor_that_the_server_computes(tree: Tree) -> None:
    split = data.read(tree).splits["valid"]
    ours, target = data.Pictures(split, SPEC)[5]
    served = preprocess(split.paths[5].read_bytes(), SPEC)
    assert target == split.targets[5]
    assert np.array_equal(ours.numpy(), served)
    reference = v2.Compose(
        [
            v2.Resize(SPEC.resize, antialias=True),
            v2.CenterCrop(SPEC.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(SPEC.mean, SPEC.std),
        ]
    )(decode(split.paths[5].read_bytes()))
    assert torch.allclose(ours, reference, atol=1e-6)


def test_an_augmented_view_depends_on_seed_epoch_and_index_only(tree: Tree) -> None:
    split = data.read(tree).splits["train"]
    views = data.Pictures(split, SPEC, "crop", seed=3)
    first = views[4][0]
    torch.rand(10)  # the state of the global generator must not matter
    assert torch.equal(views[4][0], first)
    views.view = 1
    assert not torch.equal(views[4][0], first)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_random_crop_is_resized_once(tree: Tree, interpolation: str) -> None:
    spec = replace(SPEC, interpolation=interpolation)
    split = data.read(tree).splits["train"]
    ours = data.Pictures(split, spec, "crop", seed=3, view=2)[5][0]
    mode = v2.InterpolationMode(interpolation)
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(spec.crop, interpolation=mode, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(spec.mean, spec.std),
        ]
    )
    torch.manual_seed(hash((3, 2, 5)))
    assert torch.allclose(ours, reference(decode(split.paths[5].read_bytes())), atol=1e-6)


def test_a_mirrored_image_is_the_one_that_the_server_computes(tree: Tree) -> None:
    split = data.read(tree).splits["train"]
    views = [data.Pictures(split, SPEC, "flip", seed=3, view=view)[5][0] for view in range(8)]
    plain = data.Pictures(split, SPEC)[5][0]
    mirrored = torch.from_numpy(to_tensor(ImageOps.mirror(decode(split.paths[5].read_bytes())), SPEC))
    assert {torch.equal(view, plain) for view in views} == {True, False}
    assert all(torch.equal(view, plain) or torch.equal(view, mirrored) for view in views)
