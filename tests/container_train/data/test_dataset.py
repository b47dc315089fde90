import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from container_serve.image import HEIC
from container_serve.preprocess import Preprocessing
from container_train.data import dataset, loading, sample
from container_train.data.images import ImageDataset, Item
from container_train.data.loading import Loaded
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from tests import trees

SPEC = Preprocessing(resize=64, crop=56, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), interpolation="bilinear")


@pytest.fixture
def tree(tmp_path: Path) -> SageMakerPaths:
    trees.fill(tmp_path / "input" / "data")
    return SageMakerPaths(tmp_path)


def test_labels_lose_their_number_and_keep_numeric_order(tree: SageMakerPaths) -> None:
    found = dataset.read(tree)
    assert found.classes == trees.LABELS  # 10.blue after 02.green
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert found.splits["test"].targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_one_channel_with_three_folders_is_the_same_data(tmp_path: Path, tree: SageMakerPaths) -> None:
    other = tmp_path / "other"
    trees.fill(other / "input" / "data" / "training")
    assert dataset.read(SageMakerPaths(other)).fingerprint == dataset.read(tree).fingerprint


def test_the_fingerprint_follows_the_content(tree: SageMakerPaths) -> None:
    before = dataset.read(tree).fingerprint
    trees.picture(tree.channels / "train" / "01.red" / "000.jpg", (1, 2, 3), seed=9)
    assert dataset.read(tree).fingerprint != before


def test_bad_files_are_skipped_named_and_counted(tree: SageMakerPaths, caplog: pytest.LogCaptureFixture) -> None:
    cut = tree.channels / "train" / "01.red" / "000.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    with caplog.at_level(logging.WARNING):
        found = dataset.read(tree)
        found.tell()
    assert set(found.bad) == {"train/01.red/000.jpg"}
    assert (len(found.splits["train"]), len(found.splits["test"])) == (29, 12)
    assert "skipped train/01.red/000.jpg: the JPEG image is broken" in caplog.text
    assert "skipped 1 of 54 images that cannot be read" in caplog.text
    described = found.describe()
    assert described["skipped"] == 1


def test_every_file_that_is_not_used_is_named_once(tree: SageMakerPaths, caplog: pytest.LogCaptureFixture) -> None:
    red = tree.channels / "train" / "01.red"
    for number in range(7):
        (tree.channels / "train" / f"loose{number}.jpg").write_bytes((red / "000.jpg").read_bytes())
        (red / f"notes{number}.txt").write_text("no picture")
    (tree.channels / "extra").mkdir()
    (tree.channels / "weights").mkdir()
    with caplog.at_level(logging.WARNING):
        found = dataset.read(tree)
        found.tell()
    assert len(found.splits["train"]) == 30
    assert not found.bad
    loose = ", ".join(f"train/loose{number}.jpg" for number in range(5))
    notes = ", ".join(f"train/01.red/notes{number}.txt" for number in range(5))
    assert [record.message for record in caplog.records] == [
        f"data: not used: 7 files ({loose} and 2 more: 7 .jpg), beside the class folders; move images into the folder"
        " of their class",
        f"data: not used: 7 files ({notes} and 2 more: 7 .txt), no images of a kind that is read",
        "data: not used: the channel extra",
    ]
    assert found.describe()["notes"] == [record.message.removeprefix("data: ") for record in caplog.records]


def test_what_can_be_read_is_used_whatever_its_name(tree: SageMakerPaths, tmp_path: Path) -> None:
    red = tree.channels / "train" / "01.red"
    for name in ("a.jfif", "noext", "b.txt"):
        trees.picture(red / "new.jpg", (200, 40, 40), seed=len(name))
        (red / "new.jpg").rename(red / name)
    (red / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    elsewhere = tmp_path / "elsewhere"
    for number in range(4):
        trees.picture(elsewhere / f"{number}.jpg", (200, 40, 40), seed=90 + number)
    (red / "more").symlink_to(elsewhere)
    found = dataset.read(tree)
    assert len(found.splits["train"]) == 30 + 3 + 4
    assert {"a.jfif", "noext", "b.txt"} < {path.name for path in found.splits["train"].paths}
    assert found.bad == {"train/01.red/phone.HEIC": HEIC}


def test_the_litter_of_an_operating_system_is_passed_over(tree: SageMakerPaths) -> None:
    for folder in tree.channels.glob("*/*/"):
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.jpg"):
            (folder / name).write_bytes(b"\xd0\xcf\x11\xe0")
    for split in tree.channels.iterdir():
        (split / "__MACOSX" / "01.red").mkdir(parents=True)
        (split / "__MACOSX" / "01.red" / "._000.jpg").write_bytes(b"\0\5\26\7")
        (split / "desktop.ini").write_text("[.ShellClassInfo]")
    found = dataset.read(tree)
    assert (found.classes, found.bad, found.notes) == (trees.LABELS, {}, ())


def test_a_name_is_one_class_in_whatever_unicode_form(tree: SageMakerPaths) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for number, place in enumerate([f"train/{composed}", f"train/{decomposed}", f"valid/{decomposed}"]):
        trees.picture(tree.channels / place / "a.jpg", (9, 9, 200), seed=70 + number)
    found = dataset.read(tree)
    assert found.classes == ("01.red", "02.green", "10.blue", composed)
    assert found.splits["train"].targets.tolist().count(3) == 2
    assert found.splits["valid"].targets.tolist().count(3) == 1
    assert "2 folders have this name in different Unicode forms; they are one class" in found.notes[0]


def test_classes_that_differ_in_case_only_are_told_of(tree: SageMakerPaths) -> None:
    trees.picture(tree.channels / "train" / "01.Red" / "a.jpg", (9, 9, 200), seed=70)
    found = dataset.read(tree)
    assert found.classes == ("01.Red", "01.red", "02.green", "10.blue")
    assert "the classes 01.Red and 01.red differ only in upper and lower case: they are two classes" in found.notes
    trees.picture(tree.channels / "valid" / "10.Blue" / "a.jpg", (9, 9, 200), seed=71)
    with pytest.raises(TrainError, match=r"class '10\.Blue' of valid is not in train, which has '10\.blue':"):
        dataset.read(tree)


def test_digits_that_are_no_running_number_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ages = ("0-2", "3-9", "10-19", "20-29")
    for number, split in enumerate(("train", "valid", "test")):
        for index, name in enumerate(ages):
            trees.picture(tmp_path / "input/data" / split / name / "a.jpg", (9, 9, 9), seed=10 * number + index)
    with caplog.at_level(logging.INFO):
        assert dataset.read(SageMakerPaths(tmp_path)).classes == ages
        assert "running numbers" not in caplog.text
        trees.fill(tmp_path / "numbered" / "input" / "data")
        dataset.read(SageMakerPaths(tmp_path / "numbered"))
    assert "labels: running numbers are left out: 01.red is the class red" in caplog.text


def test_near_duplicates_in_other_splits_are_named(tree: SageMakerPaths, caplog: pytest.LogCaptureFixture) -> None:
    with Image.open(sample.folder_of_photographs() / "chelsea.png") as cat:
        cat.convert("RGB").save(tree.channels / "train" / "01.red" / "cat.jpg")
        cat.convert("RGB").resize((200, 140)).save(tree.channels / "test" / "02.green" / "again.jpg", quality=60)
    found = dataset.read(tree)
    with caplog.at_level(logging.WARNING):
        found.tell()
    words = (
        "1 of 13 images of test are near-duplicates of images of train: if they are copies, the accuracy on test is too"
        " high (test/02.green/again.jpg and train/01.red/cat.jpg)"
    )
    assert [record.message for record in caplog.records] == [f"data: {words}"]
    described = found.describe()["near_duplicates"]
    assert isinstance(described, list)
    assert (described[0]["split"], described[0]["of"], described[0]["images"]) == ("test", "train", 1)


def test_a_link_to_nothing_is_named(tree: SageMakerPaths) -> None:
    (tree.channels / "train" / "01.red" / "link.jpg").symlink_to("nowhere.jpg")
    found = dataset.read(tree)
    assert "No such file" in found.bad["train/01.red/link.jpg"]
    assert len(found.splits["train"]) == 30


def test_a_folder_that_may_not_be_read_is_named(tree: SageMakerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tree.channels / "train" / "01.red" / "more"
    inner.mkdir()
    look = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path) == inner:  # root may read all
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(TrainError, match=rf"the folder {inner} cannot be read \(Permission denied\)"):
        dataset.read(tree)


@pytest.mark.parametrize("name", [b"01.red/caf\xe9.jpg", b"04.caf\xe9/a.jpg"])
def test_a_name_that_is_not_utf_8_is_refused(tree: SageMakerPaths, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tree.channels / "train") + b"/" + name))
    trees.picture(path, (1, 2, 3), seed=1)
    with pytest.raises(TrainError, match=r"the name b'.*caf\\xe9.*' in .* is not UTF-8: rename it"):
        dataset.read(tree)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_keeps_its_place(tree: SageMakerPaths, workers: int) -> None:
    split = dataset.read(tree).splits["train"]
    split.paths[3].write_bytes(b"no picture any more")
    split.paths[9].unlink()
    items = [[Item("train", image) for image in (1, 3, 9, 12)]]
    (batch,) = loading.load(ImageDataset({"train": split}, SPEC), items, workers, torch.device("cpu"))
    assert batch.bad == {1: 3, 2: 9}
    assert not batch.pixels[1:3].any()
    pixels, targets = batch.readable()
    assert torch.equal(pixels, batch.pixels[[0, 3]])
    assert targets.tolist() == [split.targets[1], split.targets[12]]
    assert torch.equal(batch.readable(borrowed=True)[0], pixels)
    without = Loaded(torch.arange(4), torch.arange(4), {0: 7, 2: 8})
    assert without.readable(borrowed=True)[0].tolist() == [3, 1, 3]
    assert len(Loaded(torch.arange(2), torch.arange(2), {1: 7}).readable(borrowed=True)[0]) == 0


def test_more_than_a_twentieth_bad_stops_the_job(tree: SageMakerPaths) -> None:
    for index in range(3):
        (tree.channels / "train" / "01.red" / f"{index:03}.jpg").write_bytes(b"")
    with pytest.raises(TrainError, match=r"3 of 54 files are not readable images, more than 5%.*train/01.red/000.jpg"):
        dataset.read(tree)


@pytest.mark.parametrize("missing", ["train", "valid", "test"])
def test_a_missing_channel_is_named(tree: SageMakerPaths, missing: str) -> None:
    (tree.channels / missing).rename(tree.base / "elsewhere")
    with pytest.raises(TrainError, match=rf"^channel {missing}: .* is not there \(found: "):
        dataset.read(tree)


def test_an_empty_class_is_named(tree: SageMakerPaths) -> None:
    (tree.channels / "train" / "11.empty").mkdir()
    with pytest.raises(TrainError, match=r"channel train: class folder '11.empty' has no readable image"):
        dataset.read(tree)


def test_a_class_only_in_valid_is_named(tree: SageMakerPaths) -> None:
    trees.picture(tree.channels / "valid" / "12.new" / "a.jpg", (9, 9, 9), seed=1)
    with pytest.raises(TrainError, match=r"class '12.new' of valid is not in train: every class"):
        dataset.read(tree)


def test_two_folders_of_one_label_stay_apart(tree: SageMakerPaths) -> None:
    trees.picture(tree.channels / "train" / "11.red" / "a.jpg", (9, 9, 9), seed=1)
    assert dataset.read(tree).classes == ("01.red", "02.green", "10.blue", "11.red")


def test_a_channel_without_class_folders_says_what_it_holds(tree: SageMakerPaths) -> None:
    (tree.channels / "test").rename(tree.base / "elsewhere")
    (tree.channels / "test").mkdir()
    (tree.channels / "test" / "x.manifest").write_text('{"source-ref": "s3://bucket/a.jpg"}')
    with pytest.raises(
        TrainError, match=rf"channel test: no class folders in {tree.channels}/test, which holds 1 file .x.manifest."
    ):
        dataset.read(tree)


def test_a_pipe_is_refused_and_not_waited_for(tree: SageMakerPaths) -> None:
    os.mkfifo(tree.channels / "train" / "01.red" / "pipe.jpg")
    with pytest.raises(TrainError, match=r"pipe\.jpg is no ordinary file"):
        dataset.read(tree)
