"""A training with images that cannot be read: each has no weight, and is left out when the epoch ends."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from container_train.data import checking, dataset, images
from container_train.data.images import Item
from container_train.errors import Stopped, TrainError
from container_train.features import sources
from container_train.paths import SageMakerPaths
from container_train.training import checkpoint, engine
from tests import trees
from tests.container_train.trainings import StopAfter, same, source, weights

BAD = {"train": [4, 17], "valid": [5]}  # of 60 and 24: in all, 3 of 108
NAMES = {"train/01.red/004.jpg", "train/01.red/017.jpg", "valid/01.red/005.jpg"}
UNCACHED = {"feature-cache": "off", "freeze-until": "none", "epochs": "4"}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dataset.Data:
    """A set of which nothing was decoded before the training."""
    monkeypatch.setattr(checking, "MOST", 0)
    base = tmp_path / "tree"
    trees.fill(base / "input" / "data", {"train": 20, "valid": 8, "test": 8})
    for name in NAMES:
        (base / "input" / "data" / name).write_bytes(b"no image")
    return dataset.read(SageMakerPaths(base))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Counts what the decoding processes read: there are none, the training does it itself."""
    found: Counter[tuple[str, int]] = Counter()
    get = images.ImageDataset.__getitem__

    def counted(self: images.ImageDataset, item: Item) -> Any:
        found[item.split, item.image] += 1
        return get(self, item)

    monkeypatch.setattr(images.ImageDataset, "__getitem__", counted)
    return found


def test_each_file_is_read_once_an_epoch_and_a_bad_one_in_the_first(
    broken: dataset.Data, tmp_path: Path, read: Counter[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    it = source(broken, tmp_path, UNCACHED)
    history = engine.Trainer(it, tmp_path, {}).fit()
    for split, count in (("train", 60), ("valid", 24)):
        # What is decoded ahead of an epoch that has bad images is decoded again, without them: a batch at most.
        expected = {(split, image): 1 if image in BAD[split] else 4 for image in range(count)}
        extra = {key: read[key] - times for key, times in expected.items() if read[key] != times}
        assert sum(extra.values()) <= it.hp.batch_size, extra
        assert not [key for key in extra if key[1] in BAD[split]]
    assert len(history) == 4
    assert all(record["train_loss"] > 0 for record in history)
    assert set(broken.unreadable.files) == NAMES
    assert broken.describe()["images"] == {"train": 58, "valid": 23, "test": 24}
    assert broken.describe()["skipped"] == 3
    assert caplog.text.count("left out from now on: 3 images that cannot be read") == 1


def test_a_step_takes_no_notice_of_an_image_that_cannot_be_read(broken: dataset.Data, tmp_path: Path) -> None:
    it = source(broken, tmp_path, UNCACHED)
    order = sources.order(60, 0, 0).tolist()
    places = [order[first : first + 8] for first in range(0, 60, 8)]
    sizes = [len(targets) for _, targets in it.training(0, 0)]
    assert sizes == [len(set(batch) - set(BAD["train"])) for batch in places]
    assert sum(len(targets) for _, targets in it.evaluation("valid")) == 23
    assert it.length("train") == 60, "they keep their places until the epoch ends"
    it.agree()
    assert (it.length("train"), it.length("valid")) == (58, 23)
    assert sum(len(targets) for _, targets in it.training(1, 0)) == 58


MIXED = {"mixup": "0.2", "cutmix": "1", "accumulate": "2", "batch-norm": "frozen", "class-weights": "balanced"}


@pytest.mark.parametrize(
    ("looks", "workers", "options"),
    [(9, "0", {}), (14, "1", {}), (9, "0", MIXED)],  # in the first epoch, and in the second
    ids=["first", "second", "mixed"],
)
def test_an_interrupted_training_leaves_the_same_out(
    broken: dataset.Data, tmp_path: Path, looks: int, workers: str, options: dict[str, str]
) -> None:
    given = {**UNCACHED, **options}
    whole = source(broken, tmp_path / "whole", {**given, "workers": workers})
    engine.Trainer(whole, tmp_path / "whole", {}).fit()
    again = dataset.read(SageMakerPaths(tmp_path / "tree"))
    stopped = source(again, tmp_path / "part", given, StopAfter(looks))
    with pytest.raises(Stopped, match="in epoch"):
        engine.Trainer(stopped, tmp_path / "part", {}).fit()
    kept = checkpoint.load(tmp_path / "part", {})
    assert kept is not None
    assert kept["unreadable"]["seen"]
    resumed = source(dataset.read(SageMakerPaths(tmp_path / "tree")), tmp_path / "part", given)
    engine.Trainer(resumed, tmp_path / "part", {}, kept).fit()
    assert same(weights(whole), weights(resumed))
    assert set(resumed.data.unreadable.files) == NAMES


@pytest.mark.parametrize("options", [{}, {"augment": "crop", "augment-views": "2"}], ids=["plain", "two views"])
def test_an_image_without_features_is_left_out(
    broken: dataset.Data, tmp_path: Path, options: dict[str, str], read: Counter[tuple[str, int]]
) -> None:
    it = source(broken, tmp_path, options)
    assert it.length("train") == 58
    assert set(broken.unreadable.files) == NAMES
    features, targets = zip(*it.training(0, 0), strict=True)
    assert sum(map(len, targets)) == 58
    assert all(torch.isfinite(part).all() for (part,) in features)
    engine.Trainer(it, tmp_path, {}).fit()
    read.clear()
    again = dataset.read(SageMakerPaths(tmp_path / "tree"))
    second = source(again, tmp_path, options)
    assert set(again.unreadable.files) == NAMES, "the files of features tell"
    assert {part: len(rows[0]) for part, rows in second.cache.items()} == {
        part: len(rows[0]) for part, rows in it.cache.items()
    }
    source(broken, tmp_path / "other", options)  # where they are known already
    third = dataset.read(SageMakerPaths(tmp_path / "tree"))
    source(third, tmp_path / "other", options)
    assert set(third.unreadable.files) == NAMES


def test_too_many_end_the_training_when_the_epoch_ends(broken: dataset.Data, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "tree" / "input" / "data" / "train" / "02.green" / f"{number:03}.jpg").write_bytes(b"")
    words = r"6 of 84 files are not readable images, more than 5%: train/.*: .*; remove or repair them"
    with pytest.raises(TrainError, match=words):
        engine.Trainer(source(broken, tmp_path, UNCACHED), tmp_path, {}).fit()
    with pytest.raises(TrainError, match=words):
        source(dataset.read(SageMakerPaths(tmp_path / "tree")), tmp_path)


@pytest.mark.parametrize(
    "options", [{"batch-size": "2"}, {"batch-size": "4", "accumulate": "2"}], ids=["batches", "parts of batches"]
)
def test_the_smallest_steps_are_done_without_an_image(
    broken: dataset.Data, tmp_path: Path, options: dict[str, str]
) -> None:
    """At 32 x 32 pixels the last maps are of 1 x 1: of the image that is left, batch statistics have no variance."""
    it = source(broken, tmp_path, {**UNCACHED, **options, "image-size": "32", "epochs": "1"})
    (record,) = engine.Trainer(it, tmp_path, {}).fit()
    assert record["train_loss"] > 0
    assert set(broken.unreadable.files) == NAMES


def mended(base: Path) -> Path:
    """Make the bad images as good as the others; return the folder of the splits."""
    root = base / "tree" / "input" / "data"
    for name in NAMES:
        (root / name).write_bytes((root / "train" / "01.red" / "000.jpg").read_bytes())
    return root


@pytest.mark.parametrize("options", [{}, UNCACHED], ids=["cached", "not cached"])
def test_a_class_without_any_readable_image_ends_the_training(
    broken: dataset.Data, tmp_path: Path, options: dict[str, str]
) -> None:
    root = mended(tmp_path)
    for number in range(3):
        (root / "train" / "11.rare" / f"{number}.jpg").parent.mkdir(exist_ok=True)
        (root / "train" / "11.rare" / f"{number}.jpg").write_bytes(b"no image")
    data = dataset.read(SageMakerPaths(tmp_path / "tree"))
    with pytest.raises(TrainError, match=r"^channel train: class folder '11.rare' has no readable image: add some or"):
        engine.Trainer(source(data, tmp_path, options), tmp_path, {}).fit()


def test_what_stands_in_a_class_folder_and_is_no_file_of_an_image(broken: dataset.Data, tmp_path: Path) -> None:
    """Those of which a read fails, or nothing comes, are bad images; those in a folder of any name are images."""
    folder = mended(tmp_path) / "train" / "02.green"
    (folder / "000.jpg").rename(folder / "keep")
    (folder / "000.jpg").mkdir()
    (folder / "keep").rename(folder / "000.jpg" / "000.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "refused.jpg").symlink_to("/proc/self/mem")  # a file whose read fails, for root as well
    data = dataset.read(SageMakerPaths(tmp_path / "tree"))
    assert len(data.splits["train"]) == 62
    it = source(data, tmp_path, UNCACHED)
    (folder / "005.jpg").unlink()  # since it was listed
    (folder / "006.jpg").write_bytes((folder / "007.jpg").read_bytes() + b"longer")
    engine.Trainer(it, tmp_path, {}).fit()
    reasons = {name.removeprefix("train/02.green/"): why for name, why in data.unreadable.files.items()}
    assert reasons.keys() == {"loop.jpg", "refused.jpg", "005.jpg"}
    assert "Too many levels of symbolic links" in reasons["loop.jpg"]
    assert "Input/output error" in reasons["refused.jpg"]
