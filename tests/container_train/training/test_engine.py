"""The training loop on real pictures: what interruption, cache and settings change, and what they must not."""

import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from container_train.data import dataset
from container_train.distributed.process_group import ProcessGroup
from container_train.errors import Stopped, TrainError
from container_train.features import sources
from container_train.model import batch_norm, builder
from container_train.paths import SageMakerPaths
from container_train.signals import StopFlag
from container_train.training import checkpoint, engine
from container_train.training.checkpoint import load
from tests import trees
from tests.container_train.trainings import StopAfter, same, source, weights


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dataset.Data:
    base = tmp_path_factory.mktemp("tree")
    trees.fill(base / "input" / "data")
    return dataset.read(SageMakerPaths(base))


def trainer(pictures: dataset.Data, folder: Path, **options: str) -> engine.Trainer:
    it = source(pictures, options=options)
    return engine.Trainer(it, folder, {"lr": it.hp.lr}, load(folder, {"lr": it.hp.lr}))


def interrupted(it: engine.Trainer, steps: int) -> engine.Trainer:
    """Asked to stop once it has done so many steps, of four an epoch."""

    class StopAt(StopFlag):
        @property
        def asked(self) -> bool:
            return it.state.epoch * 4 + it.state.step >= steps

        @asked.setter
        def asked(self, value: bool) -> None: ...

    it.learner.stop = StopAt()
    return it


def test_training_learns_and_keeps_the_best_epoch(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, epochs="8", lr="0.01")
    history = it.fit()
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    best = max(row["valid_accuracy"] for row in history)
    assert best > 0.6
    valid = it.learner.evaluate("valid")
    assert valid.correct / valid.seen == best


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 1),
        ({}, 7),
        ({"augment": "crop", "workers": "2"}, 7),
        ({"freeze_until": "features.9"}, 7),
        pytest.param({"augment": "crop", "workers": "2"}, 1, marks=pytest.mark.full),
        pytest.param({"freeze_until": "features.9"}, 1, marks=pytest.mark.full),
    ],
)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    pictures: dataset.Data, tmp_path: Path, options: dict[str, str], steps: int
) -> None:
    whole = trainer(pictures, tmp_path / "whole", **options)
    history = whole.fit()
    cut = interrupted(trainer(pictures, tmp_path / "cut", **options), steps)
    with pytest.raises(Stopped):
        cut.fit()
    again = trainer(pictures, tmp_path / "cut", **options)
    assert again.state.epoch * 4 + again.state.step == steps  # nothing that was done is done again
    resumed = again.fit()
    assert same(weights(whole), weights(again))
    for ours, theirs in zip(resumed, history, strict=True):
        assert {k: v for k, v in ours.items() if k != "images_per_second"} == {
            k: v for k, v in theirs.items() if k != "images_per_second"
        }


@pytest.mark.parametrize("options", [{}, {"augment": "crop", "workers": "2", "feature_cache": "off"}])
def test_losses_that_are_read_a_step_late_change_nothing(
    pictures: dataset.Data, tmp_path: Path, options: dict[str, str]
) -> None:
    """As on a GPU; a stop, and the checkpoint that it leaves, is as exact."""
    at_once = trainer(pictures, tmp_path / "now", **options)
    history = at_once.fit()
    cut = interrupted(trainer(pictures, tmp_path / "late", **options), 6)
    cut.learner.late = 1
    with pytest.raises(Stopped):
        cut.fit()
    late = trainer(pictures, tmp_path / "late", **options)
    late.learner.late = 1
    assert (late.state.epoch, late.state.step, late.state.tally.seen) == (1, 2, 16)
    resumed = late.fit()
    assert same(weights(at_once), weights(late))
    assert [row["train_loss"] for row in resumed] == [row["train_loss"] for row in history]
    assert [row["train_accuracy"] for row in resumed] == [row["train_accuracy"] for row in history]


@pytest.mark.parametrize(("late", "steps"), [(0, 1), (1, 1), (1, 4)])
def test_a_loss_that_is_not_finite_names_its_step(
    pictures: dataset.Data, tmp_path: Path, late: int, steps: int
) -> None:
    """The last one of an epoch, too."""
    it = trainer(pictures, tmp_path)
    it.learner.late = late
    step = it.learner.step

    def broken(*arguments: Any) -> None:
        if it.state.step == steps - 1:
            with torch.no_grad():
                it.network.trainable()[0].fill_(float("nan"))
        step(*arguments)

    it.learner.step = broken  # type: ignore[assignment]
    with pytest.raises(TrainError, match=f"the loss became nan in epoch 1, step {steps}: lower lr"):
        it.fit()
    assert not list(tmp_path.glob("checkpoint*"))


def test_a_checkpoint_that_cannot_be_written_ends_the_job(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written beside the training: the next one, or the end, says so; the one before is kept."""
    it = trainer(pictures, tmp_path)
    monkeypatch.setattr("container_train.training.checkpoint.replacing", full)
    with pytest.raises(TrainError, match="could not be written: No space left on device; the one before it is kept"):
        it.fit()
    assert it.state.epoch == 2


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_checkpoints_that_take_long_are_rarer_and_the_last_one_is_written(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)
    it = trainer(pictures, tmp_path, epochs="5")
    saved: list[int] = []
    save = it.writer.save

    def counted(state: dict[str, Any]) -> None:
        saved.append(state["epoch"])
        save(state)

    monkeypatch.setattr(it.writer, "save", counted)
    it.fit()
    assert saved == [1, 5]
    again = trainer(pictures, tmp_path, epochs="5")
    assert again.fit() == it.state.history
    assert same(weights(it), weights(again))


def test_the_state_of_a_checkpoint_is_that_of_its_step(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the training went on before it was written."""
    it = trainer(pictures, tmp_path, epochs="1")
    save, going_on = it.writer.save, threading.Event()
    write = checkpoint.save

    def wait(*arguments: Any) -> None:
        assert going_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "save", wait)
    before: list[dict[str, torch.Tensor]] = []

    def then(state: dict[str, Any]) -> None:
        before.append(weights(it))
        save(state)
        with torch.no_grad():
            it.network.trainable()[0].add_(1)
            next(iter(it.learner.optimizer.state.values()))["exp_avg"].add_(1)
        going_on.set()

    monkeypatch.setattr(it.writer, "save", then)
    it.fit()
    state = load(tmp_path, {"lr": it.hp.lr})
    assert state is not None
    assert same(state["model"], before[0])
    assert not torch.equal(
        state["optimizer"]["state"][0]["exp_avg"], next(iter(it.learner.optimizer.state.values()))["exp_avg"]
    )


@pytest.mark.parametrize("options", [{}, {"mixup": "0.5", "augment": "flip", "augment_views": "2"}])
def test_cached_features_train_the_same_weights(
    pictures: dataset.Data, tmp_path: Path, options: dict[str, str]
) -> None:
    cached = trainer(pictures, tmp_path / "a", feature_cache="on", **options)
    cached.fit()
    plain = trainer(pictures, tmp_path / "b", feature_cache="off", **options)
    plain.fit()
    assert cached.source.cache
    assert not plain.source.cache
    ours, theirs = weights(cached), weights(plain)
    # The backbone sees other batches, so that its sums differ in the last bits.
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_a_cache_that_cannot_be_is_refused_when_asked_for(pictures: dataset.Data, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="feature-cache has value 'on', but every epoch sees other views"):
        trainer(pictures, tmp_path, feature_cache="on", augment="flip", augment_views="0")


def test_a_cache_too_large_for_the_memory_is_left_out(
    pictures: dataset.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Memory:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with caplog.at_level("INFO"):
        assert not trainer(pictures, tmp_path).source.cache
    assert "more than 40%" in caplog.text


@pytest.mark.parametrize("options", [{}, {"class_weights": "balanced", "mixup": "0.3", "amp": "on"}])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    pictures: dataset.Data, tmp_path: Path, options: dict[str, str]
) -> None:
    given = {"freeze_until": "none", "batch_norm": "frozen", "arch": "resnet18", "image_size": "32", "epochs": "1"}
    whole, parts = (
        trainer(pictures, tmp_path / number, **given, **options, accumulate=number, optimizer="sgd")
        for number in ("1", "3")
    )
    ours, theirs = (it.fit()[0] for it in (whole, parts))
    close = 0.02 if options else 1e-4  # bfloat16 rounds a part's activations by themselves
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=close)
    expected, found = weights(whole), weights(parts)
    assert all(torch.allclose(found[name].float(), expected[name].float(), atol=close) for name in found)


def test_frozen_batch_statistics_stay_as_they_are(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, freeze_until="none", batch_norm="frozen", epochs="1", lr="0.01", image_size="32")
    before = weights(it)
    it.fit()
    after = weights(it)
    changed = {name.rpartition(".")[2] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"weight", "bias"}


def test_the_loss_that_an_epoch_is_chosen_by_is_the_plain_one(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, label_smoothing="0.3", epochs="1")
    (record,) = it.fit()
    found = it.learner.evaluate("valid")
    assert found.loss / found.seen == pytest.approx(record["valid_loss"])
    logits = torch.cat([it.network.head(*inputs) for inputs, _ in it.source.evaluation("valid")])
    plain = torch.nn.functional.cross_entropy(logits, it.source.targets["valid"])
    assert record["valid_loss"] == pytest.approx(float(plain.detach()), abs=1e-5)


def test_an_average_is_evaluated_where_the_debugger_counts(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, ema="0.5", epochs="1")
    modes: list[bool] = []
    it.network.head.register_forward_pre_hook(lambda head, _: modes.append(head.training))
    it._epoch()
    batches = [-(-len(pictures.splits[split]) // it.hp.batch_size) for split in ("train", "valid")]
    assert modes == [True] * batches[0] + [False] * batches[1]
    assert it.learner.average is not None
    logits = torch.cat([it.learner.average.module(*inputs) for inputs, _ in it.source.evaluation("valid")])
    loss = torch.nn.functional.cross_entropy(logits, it.source.targets["valid"])
    assert it.state.history[0]["valid_loss"] == pytest.approx(float(loss.detach()), abs=1e-5)


def test_macro_f1_chooses_the_epoch_where_asked(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, select_by="macro-f1", epochs="4", lr="0.01")
    history = it.fit()
    best = max(history, key=lambda row: (row["valid_macro_f1"], -row["valid_loss"]))
    assert it.state.best["epoch"] == best["epoch"]
    assert it.learner.evaluate("valid").macro_f1 == pytest.approx(best["valid_macro_f1"])


def test_patience_ends_the_training(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, epochs="50", patience="2", lr="0.01")
    history = it.fit()
    assert len(history) < 50
    assert len(history) - it.state.best["epoch"] == 2


def test_a_validation_loss_that_is_not_finite_ends_the_job(
    pictures: dataset.Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In training, batch statistics of the batch are used, and the running ones in evaluation alone."""
    it = trainer(pictures, tmp_path, freeze_until="none", image_size="32")
    norm = next(module for module in it.network.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        norm.get_buffer("running_mean").fill_(float("nan"))
    with (
        caplog.at_level("INFO"),
        pytest.raises(TrainError, match=r"^the validation loss became nan after epoch 1: low"),
    ):
        it.fit()
    assert "valid_accuracy=" not in caplog.text  # a search would take it for the trial's result
    assert not it.state.best


def test_epochs_of_a_checkpoint_are_looked_at_alike(pictures: dataset.Data, tmp_path: Path) -> None:
    it = trainer(pictures, tmp_path, epochs="1")
    it.fit()
    it.state.history[0]["valid_loss"] = float("nan")
    it._save()
    with pytest.raises(TrainError, match="the validation loss became nan after epoch 1"):
        trainer(pictures, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_too_few_images_for_batch_statistics_are_refused(size: int) -> None:
    def build(freeze_until: str) -> builder.Network:
        return builder.build("resnet18", 3, weights="none", weights_file=None, freeze_until=freeze_until, image_size=32)

    world, least = ProcessGroup(0, size, size), 2 * size
    trained = build("layer3")
    named = "" if size == 1 else f" for {size} processes"
    with pytest.raises(
        TrainError, match=rf"^hyperparameter batch-size has value {least - 1}: .* at least {least}{named}"
    ):
        batch_norm.check(trained, least - 1, 100, world)
    with pytest.raises(TrainError, match=rf"^channel train has {least - 1} images for {size} processes: "):
        batch_norm.check(trained, 64, least - 1, world)
    with pytest.raises(
        TrainError, match=r"^hyperparameter accumulate has value 3: .* use at most 2, or set batch-norm"
    ):
        batch_norm.check(trained, 2 * least, 100, world, accumulate=3)
    batch_norm.check(trained, 2 * least, 100, world, accumulate=2)
    batch_norm.check(trained, least, least, world)
    batch_norm.check(build("backbone"), 1, 1, world, accumulate=3)  # there they are not trained
    assert not any(module.training for module in trained.model.modules())


def test_the_smallest_batch_of_batch_statistics_trains_every_step(pictures: dataset.Data, tmp_path: Path) -> None:
    """At 32 x 32 pixels the last ones are of 1 x 1 maps: a single image has no variance there."""
    it = trainer(pictures, tmp_path, epochs="1", batch_size="2", freeze_until="none", image_size="32")
    it.fit()
    assert {int(state["step"]) for state in it.learner.optimizer.state.values()} == {15}  # of 30 images


def test_a_stop_while_the_frozen_layers_run(pictures: dataset.Data) -> None:
    with pytest.raises(Stopped, match="while the frozen layers ran"):
        source(pictures, stop=StopAfter(1))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_other_optimizers_train(pictures: dataset.Data, tmp_path: Path, name: str) -> None:
    history = trainer(pictures, tmp_path, optimizer=name, lr="0.01").fit()
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_mixed_precision_trains(pictures: dataset.Data, tmp_path: Path) -> None:
    history = trainer(pictures, tmp_path, amp="on", lr="0.01").fit()
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    first, second = (sources.order(10, seed=1, epoch=epoch).tolist() for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == sources.order(10, seed=1, epoch=0).tolist()
    assert first != sources.order(10, seed=2, epoch=0).tolist()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scaler", None, "KeyError: 'scaler'"),
        ("optimizer", {"state": {}}, "KeyError: 'param_groups'"),
        ("model", {"classifier.3.weight": torch.zeros(7, 7)}, "RuntimeError: Error.* size mismatch"),
    ],
)
def test_a_checkpoint_of_another_version_is_told(
    key: str, value: object, words: str, pictures: dataset.Data, tmp_path: Path
) -> None:
    it = trainer(pictures, tmp_path, epochs="1")
    state = {**it.learner.state_dict(), "unreadable": pictures.unreadable.state(), key: value}
    if value is None:
        del state[key]
    expected = (
        f"the checkpoint in {tmp_path} is of another version of this program \\({words}.*: use an empty checkpoint"
    )
    with pytest.raises(TrainError, match=expected):
        engine.Trainer(it.source, tmp_path, {}, state)
