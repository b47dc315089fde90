"""The monitor in real trainings, without its side processes; tests/contract has it all."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from container_train.data import dataset
from container_train.data.images import ImageDataset, Item
from container_train.errors import Stopped, TrainError
from container_train.hyperparameters import Hyperparameters
from container_train.monitoring import monitor
from container_train.monitoring.monitor import Monitor
from container_train.paths import SageMakerPaths
from container_train.profiler import rules, store
from container_train.training import engine
from tests import trees
from tests.container_train import trainings


@pytest.fixture
def tree(tmp_path: Path) -> SageMakerPaths:
    return SageMakerPaths(trees.tree(tmp_path / "ml"))


def parsed(**options: str) -> Hyperparameters:
    return trainings.parsed(**{"epochs": "2", **options})


def trainer(tree: SageMakerPaths, hp: Hyperparameters, watching: Monitor) -> engine.Trainer:
    source = trainings.source(dataset.read(tree), hp=hp)
    watching.note(feature_cache=bool(source.cache), workers=source.workers)
    return engine.Trainer(source, tree.checkpoints, {}, None, watching)


def facts(tree: SageMakerPaths) -> dict[str, object]:
    return store.job(tree.output)


def test_everything_off_starts_and_writes_nothing(tree: SageMakerPaths) -> None:
    with Monitor.start(tree, parsed()) as watching:
        assert (watching.timeline, watching.watcher, watching.sampler) == (None, None, None)
        trainer(tree, parsed(), watching).fit()
    assert not tree.output.exists()
    assert monitor.OFF.job == {}


def test_phases_steps_epochs_and_the_trace_of_a_training(tree: SageMakerPaths) -> None:
    hp = parsed(torch_profile="2:4")
    with Monitor.start(tree, hp) as watching:
        assert (watching.watcher, watching.sampler) == (None, None)
        assert facts(tree)["status"] == "running"
        with watching.phase("train"):
            history = trainer(tree, hp, watching).fit()
    read = store.timeline(tree.output)
    names = [(phase.name, phase.epoch) for phase in read.phases]
    assert names == [("train", None), ("evaluate", 1), ("checkpoint", 1), ("evaluate", 2), ("checkpoint", 2)]
    whole = read.phases[0]
    assert all(whole.start <= phase.start <= phase.end <= whole.end for phase in read.phases)
    assert [row["train_loss"] for row in read.epochs] == [row["train_loss"] for row in history]
    steps = read.steps
    assert steps.number.tolist() == list(range(8))
    assert steps.epoch.tolist() == [1] * 4 + [2] * 4
    parts = steps.data + steps.forward + steps.backward + steps.optimizer
    assert (parts <= steps.total + 1e-5).all()
    assert (steps.forward > 0).all()
    assert (tree.output / "profiler" / "trace.json.gz").stat().st_size > 1000
    assert (facts(tree)["status"], facts(tree)["reason"]) == ("completed", "")


def test_it_changes_nothing_in_what_is_learned(tree: SageMakerPaths) -> None:
    hp = parsed(torch_profile="1:3", freeze_until="features.9")
    with Monitor.start(tree, hp) as watching:
        watched = trainer(tree, hp, watching)
        watched.fit()
    plain = trainer(tree, hp, monitor.OFF)
    plain.fit()
    assert trainings.same(trainings.weights(watched), trainings.weights(plain))


@pytest.mark.timing
def test_a_slow_data_loader_fires_the_rule_and_a_quick_one_does_not(
    tree: SageMakerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps long enough for the quick loader's share of them to stay small on a busy machine too.
    hp = parsed(
        epochs="3", feature_cache="off", freeze_until="none", torch_profile="0:1", batch_size="4", image_size="112"
    )
    decode = ImageDataset.__getitem__
    decoded: dict[Item, tuple[torch.Tensor, int]] = {}

    def quick(self: ImageDataset, item: Item) -> tuple[torch.Tensor, int]:
        if item not in decoded:
            decoded[item] = decode(self, item)
        return decoded[item]

    def slow(self: ImageDataset, item: Item) -> tuple[torch.Tensor, int]:
        time.sleep(0.04 if item.split == "train" else 0)
        return quick(self, item)

    def judge(loader: Callable[[ImageDataset, Item], tuple[torch.Tensor, int]]) -> tuple[str, str]:
        monkeypatch.setattr(ImageDataset, "__getitem__", loader)
        with Monitor.start(tree, hp) as watching:
            it = trainer(tree, hp, watching)
            for image in range(30):
                quick(it.source.images, Item("train", image))
            it.fit()
        for path in tree.checkpoints.glob("*"):
            path.unlink()
        finding = next(finding for finding in rules.evaluate(tree.output) if finding.rule == "dataloader")
        return finding.status, finding.reason

    status, reason = judge(quick)
    assert status == "ok", reason
    status, reason = judge(slow)
    assert status == "fired"
    assert "0 decoding processes" in reason


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Stopped("in epoch 1 after 2 steps"), "stopped", "in epoch 1 after 2 steps"),
        (TrainError("the loss became nan\nand more"), "failed", "the loss became nan"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_how_a_job_ended_stands_in_job_json(tree: SageMakerPaths, error: Exception, status: str, reason: str) -> None:
    with pytest.raises(type(error)), Monitor.start(tree, parsed(torch_profile="0:1")):
        raise error
    assert (facts(tree)["status"], facts(tree)["reason"]) == (status, reason)
    assert facts(tree)["ended"]


def test_a_rule_that_stops_the_training_keeps_the_best_epoch(
    tree: SageMakerPaths, caplog: pytest.LogCaptureFixture
) -> None:
    hp = parsed(torch_profile="0:1", epochs="50")
    with caplog.at_level(logging.INFO), Monitor.start(tree, hp) as watching:
        it = trainer(tree, hp, watching)
        heard = watching.epoch

        def epoch(record: dict[str, float]) -> None:
            heard(record)
            if record["epoch"] == 3:
                watching._hear("stop overfit: the validation loss is 30 % above the training loss")

        watching.epoch = epoch  # type: ignore[method-assign,assignment]
        history = it.fit()
    assert len(history) == 3
    assert it.state.stopped_by == "overfit: the validation loss is 30 % above the training loss"
    assert "stopping early: rule overfit: the validation loss" in caplog.text
    assert str(facts(tree)["reason"]).startswith("stopped early by rule overfit: ")


def test_a_rule_that_stops_before_the_first_epoch_is_done_fails_the_job(tree: SageMakerPaths) -> None:
    hp = parsed(torch_profile="0:1")
    words = r"rule exploding_tensor: NaN in x; hyperparameter on-rule is stop"

    def run() -> None:
        with Monitor.start(tree, hp) as watching:
            watching._hear("something else")
            watching._hear("stop exploding_tensor: NaN in x")
            trainer(tree, hp, watching).fit()

    with pytest.raises(TrainError, match=words):
        run()
    assert facts(tree)["status"] == "failed"


def test_where_the_watcher_was_killed_the_report_says_so_and_how_the_job_ended(tree: SageMakerPaths) -> None:
    with Monitor.start(tree, parsed(debug="on")) as watching:
        assert watching.watcher is not None
        watching.watcher.process.kill()
        trainer(tree, parsed(debug="on"), watching).fit()
    page = (tree.output / monitor.REPORT).read_text()
    assert "<title>Completed: " in page
    assert "container_train.debugger.watch ended with code -9" in page


def test_a_full_disk_ends_the_timeline_and_not_the_training(
    tree: SageMakerPaths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from container_train.profiler.timeline import TimelineWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    hp = parsed(torch_profile="0:1")
    with Monitor.start(tree, hp) as watching:
        monkeypatch.setattr(TimelineWriter, "step", full)
        assert len(trainer(tree, hp, watching).fit()) == 2
    assert caplog.text.count("the timeline could not be written") == 1
    problems = facts(tree)["problems"]
    assert isinstance(problems, list)
    assert "No space left on device" in problems[0]


def test_a_monitor_that_cannot_start_is_a_line(tree: SageMakerPaths, caplog: pytest.LogCaptureFixture) -> None:
    tree.output.parent.mkdir(parents=True)
    tree.output.write_text("a file in the way")
    hp = parsed(profile_interval="500", debug="on")
    with Monitor.start(tree, hp) as watching:
        assert len(trainer(tree, hp, watching).fit()) == 2
    assert "monitor: it could not be started" in caplog.text


def test_files_of_an_earlier_run_make_room(tree: SageMakerPaths) -> None:
    mark = tree.output / "profiler" / "mark"
    with Monitor.start(tree, parsed(torch_profile="0:1")):
        mark.touch()
    with Monitor.start(tree, parsed(torch_profile="0:1")):
        assert not mark.exists()
