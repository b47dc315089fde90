"""The feature cache under a training: shared, resumed, and the same model with it as without it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from container_train.data import dataset, images
from container_train.errors import Stopped
from container_train.features import cache, extractor, sources
from container_train.paths import SageMakerPaths
from container_train.training import engine
from tests import trees
from tests.container_train.trainings import StopAfter, Weights, same, source, weights


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dataset.Data:
    base = tmp_path_factory.mktemp("tree")
    trees.fill(base / "input" / "data")
    return dataset.read(SageMakerPaths(base))


def trained(it: sources.Source, folder: Path) -> Weights:
    engine.Trainer(it, folder, {}).fit()
    return weights(it)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sources.Source, "_estimate_statistics", lambda *_: None)
    return monkeypatch


def test_a_second_start_decodes_nothing(
    pictures: dataset.Data, tmp_path: Path, no_decoding: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = source(pictures, tmp_path).cache
    no_decoding.setattr(images.ImageDataset, "__getitem__", lambda *_: pytest.fail("decoded again"))
    with caplog.at_level("INFO"):
        again = source(pictures, tmp_path, {"batch-size": "4", "lr": "0.1"}).cache
    assert f"30 images of train read from {tmp_path}/checkpoints/features" in caplog.text
    assert all(torch.equal(first[part][0], again[part][0]) for part in first)
    shutil.move(tmp_path / "checkpoints" / "features", tmp_path / "input" / "data" / "features")
    assert source(pictures, tmp_path).cache
    assert not (tmp_path / "checkpoints" / "features").exists()


@pytest.mark.parametrize(
    "options",
    [{"image-size": "48"}, {"freeze-until": "features.9"}, {"seed": "1"}, {"augment": "flip"}, {"amp": "on"}],
    ids=lambda options: next(iter(options)),
)
def test_what_changes_the_features_is_computed_anew(
    pictures: dataset.Data, tmp_path: Path, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    source(pictures, tmp_path)
    with caplog.at_level("INFO"):
        source(pictures, tmp_path, options)
    assert "images of train read" not in caplog.text


def test_views_of_another_version_of_the_augmentation_are_computed_anew(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"augment": "crop", "augment-views": "1"}
    source(pictures, tmp_path, options)
    with caplog.at_level("INFO"):
        source(pictures, tmp_path, options)
    assert "30 images of train, view 1 read" in caplog.text
    monkeypatch.setattr("torchvision.__version__", "0.0.1")
    caplog.clear()
    with caplog.at_level("INFO"):
        source(pictures, tmp_path, options)
    assert "12 images of valid read" in caplog.text  # they are not augmented
    assert "images of train, view 1 read" not in caplog.text


def test_a_stopped_pass_is_gone_on_with_to_the_same_features(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(extractor, "BATCH", 4)
    monkeypatch.setattr(cache, "CHUNK", 8)
    whole = source(pictures, tmp_path / "whole").cache
    with pytest.raises(Stopped):
        source(pictures, tmp_path / "cut", stop=StopAfter(3 + 5))  # valid are 3 batches, train 8
    with caplog.at_level("INFO"):
        again = source(pictures, tmp_path / "cut").cache
    assert "16 of 30 images of train existed already" in caplog.text
    assert all(torch.equal(whole[part][0], again[part][0]) for part in whole)


@pytest.mark.parametrize("augment", [pytest.param("none", marks=pytest.mark.full), "crop"])
@pytest.mark.parametrize("freeze", ["backbone", "features.9"])
def test_the_same_views_train_the_same_weights_with_and_without_it(
    pictures: dataset.Data, tmp_path: Path, augment: str, freeze: str
) -> None:
    """Exactly, in float32, and where a step is as large as a batch of the pass: the sums are then made alike."""
    options = {"augment": augment, "augment-views": "2", "freeze-until": freeze, "batch-size": "64"}
    cached, plain = (source(pictures, tmp_path, {**options, "feature-cache": word}) for word in ("on", "off"))
    assert len(cached.cache) == (2 if augment == "none" else 3)
    assert not plain.cache
    assert same(trained(cached, tmp_path / "a"), trained(plain, tmp_path / "b"))


def test_the_views_of_an_epoch_come_round_again(pictures: dataset.Data) -> None:
    def first(augment: str, views: str, epoch: int) -> torch.Tensor:
        options = {"feature-cache": "off", "augment": augment, "augment-views": views, "batch-size": "30"}
        it = source(pictures, options=options)
        pixels, _ = next(iter(it.training(epoch, 0)))
        assert isinstance(pixels, torch.Tensor)
        return pixels[sources.order(30, 0, epoch).argsort()]  # as they are listed

    assert torch.equal(first("crop", "2", 0), first("crop", "2", 2))
    assert not torch.equal(first("crop", "2", 0), first("crop", "2", 1))
    assert not torch.equal(first("crop", "0", 0), first("crop", "0", 2))


def test_without_room_on_the_disk_they_are_in_memory(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "container_train.features.location.shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1000))
    )
    with caplog.at_level("INFO"):
        it = source(pictures, tmp_path)
    assert it.cache
    assert "kept in memory only (" in caplog.text
    assert "has room for 0.0 GB" in caplog.text
    assert not list(tmp_path.rglob("*.bin"))


def test_a_disk_that_is_full_after_all_is_no_end(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("container_train.features.files.os.truncate", full)
    assert source(pictures, tmp_path).cache
    assert "kept in memory" in caplog.text
    assert "No space left on device" in caplog.text
