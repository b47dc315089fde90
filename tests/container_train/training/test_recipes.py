"""The recipe finetune through the whole pipeline: two stages, which interruptions do not change."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from container_train import command_line, pipeline
from container_train.compute.precision import Precision
from container_train.distributed.process_group import SINGLE
from container_train.errors import Stopped, TrainError
from container_train.model import builder
from container_train.monitoring.monitor import Monitor
from container_train.paths import SageMakerPaths
from container_train.training import estimate, learner
from container_train.training.stages import settled, stages_of
from tests import trees

STEPS = 4  # of an epoch of 30 images
FINETUNE = {**trees.SMALL, "recipe": "finetune", "head-epochs": "2", "epochs": "2", "measure": "none"}


def train(base: Path, tracked: list[Mapping[str, float]] | None = None, /, **options: str) -> dict[str, Any]:
    """Train over the tree `base` and return its checkpoint; `tracked` gets what a tracker would."""
    words = {**FINETUNE, **{key.replace("_", "-"): value for key, value in options.items()}}
    hp = command_line.parse([word for key, value in words.items() for word in (f"--{key}", value)])
    tree = SageMakerPaths(base)
    with Monitor.start(tree, hp) as watching:
        if tracked is not None:
            watching.track = tracked.append
        pipeline.train(hp, tree, watching, SINGLE)
    return checkpoint(base)


def checkpoint(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(base / "checkpoints" / "checkpoint.pt", weights_only=True)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    trees.fill(tmp_path / "input" / "data")
    return tmp_path


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask for a stop, as SIGTERM does, once so many steps are done."""
    step = learner.Learner.step

    def arm(steps: int) -> None:
        done = 0

        def counted(self: learner.Learner, *batch: Any) -> None:
            nonlocal done
            step(self, *batch)
            done += 1
            if done == steps:
                self.stop.asked = True

        monkeypatch.setattr(learner.Learner, "step", counted)

    return arm


def same(ours: Any, theirs: Any) -> bool:
    """Compare two checkpoints, but for speeds."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            key == "images_per_second" or same(value, theirs[key]) for key, value in ours.items()
        )
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def test_two_stages_train_the_new_layer_and_then_all(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        found = train(tree)
    assert [row["epoch"] for row in found["history"]] == [1, 2, 3, 4]
    assert found["stage"] == 1
    assert found["schedule"]["last_epoch"] == 2 * STEPS
    assert max(found["schedule"]["_last_lr"]) == 0  # a cosine ends there
    before = builder.build(
        "mobilenet_v3_small", 3, weights="none", weights_file=None, freeze_until="backbone", image_size=64
    ).model.state_dict()
    assert not torch.equal(found["model"]["features.4.block.0.0.weight"], before["features.4.block.0.0.weight"])
    metrics = json.loads((tree / "output" / "data" / "metrics.json").read_text())
    best = max(metrics["epochs"], key=lambda row: (row["valid_accuracy"], -row["valid_loss"]))
    assert metrics["best_epoch"] == best["epoch"]
    assert "stage 1 of 2: epochs 1 to 2" in caplog.text
    assert "stage 2 of 2: epochs 3 to 4" in caplog.text
    assert caplog.text.count("time: about ") == 1
    assert "mixup=0.2" in caplog.text
    assert metrics["hyperparameters"]["layer-decay"] == 0.5


ALL = {"class_weights": "balanced", "select_by": "macro-f1", "clip": "0.5", "accumulate": "2"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a training that nothing interrupts."""
    base = tmp_path_factory.mktemp("whole")
    trees.fill(base / "input" / "data")
    return train(base, **ALL)


@pytest.mark.parametrize("steps", [3, 2 * STEPS, 2 * STEPS + 3])
def test_an_interrupted_recipe_ends_as_an_uninterrupted_one(
    tree: Path, whole: dict[str, Any], stop_after: Callable[[int], None], steps: int
) -> None:
    stop_after(steps)
    with pytest.raises(Stopped):
        train(tree, **ALL)
    cut = checkpoint(tree)
    assert cut["epoch"] * STEPS + cut["step"] == steps
    tracked: list[Mapping[str, float]] = []
    assert same(train(tree, tracked, **ALL), whole)
    assert [row["epoch"] for row in tracked] == [1, 2, 3, 4], "a tracker gets those from before it, too"


def test_a_schedule_does_not_resume_with_other_epochs(tree: Path, stop_after: Callable[[int], None]) -> None:
    stop_after(2)
    with pytest.raises(Stopped):
        train(tree)
    with pytest.raises(TrainError, match="made with epochs 2, this job has 3"):
        train(tree, epochs="3")


def test_the_recipe_trains_part_of_the_layers_on_cached_features(tree: Path) -> None:
    found = train(tree, freeze_until="features.9", augment="flip", augment_views="2", random_erasing="0")
    assert [row["epoch"] for row in found["history"]] == [1, 2, 3, 4]
    averages = {name.removeprefix("module."): value for name, value in found["average"].items()}
    trained = {name for name in found["model"] if name.startswith(("features.1", "classifier."))}
    assert any(name.startswith("features.10.") for name in trained)
    assert trained - {name for name in trained if name.startswith("features.1.")} <= averages.keys()


def test_the_average_is_what_is_evaluated_and_kept(tree: Path) -> None:
    found = train(tree, ema="0.9", head_epochs="0", epochs="1")
    averages = {name.removeprefix("module."): value for name, value in found["average"].items()}
    assert all(torch.equal(value, averages[name]) for name, value in found["best"]["model"].items())
    assert not torch.equal(averages["classifier.3.weight"], found["model"]["classifier.3.weight"])


def test_all_layers_on_a_cpu_with_any_recipe_say_beforehand_how_long_they_take(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train(tree, recipe="head", head_epochs="0", freeze_until="none", epochs="1")
    assert caplog.text.count("time: about ") == 1


def test_measuring_a_step_leaves_the_network_as_it_was() -> None:
    arch = "mobilenet_v3_small"
    network = builder.build(arch, 3, weights="none", weights_file=None, freeze_until="none", image_size=64)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    state = torch.get_rng_state()
    hp = command_line.parse(["--recipe", "finetune", "--arch", arch])
    words = estimate.words(network, hp, Precision.choose("off", torch.device("cpu")), 10_000_000)
    assert re.search(r"^time: about \d+ (h|d) .* on this CPU for 25 epochs of all layers, .* --recipe views", words)
    assert same(dict(network.model.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in network.model.parameters())
    assert not network.model.training


def test_a_new_layer_alone_is_trained_in_one_stage(caplog: pytest.LogCaptureFixture) -> None:
    given = "--recipe finetune --freeze-until {} --epochs 2"
    with caplog.at_level("INFO"):
        alone = settled(command_line.parse(given.format("backbone").split()))
    assert [(stage.first, stage.end, stage.last) for stage in stages_of(alone)] == [(0, 2, True)]
    assert caplog.messages == [
        "head-epochs 0 instead of 4: with freeze-until backbone the new layer is trained alone",
    ]
    caplog.clear()
    assert len(stages_of(settled(command_line.parse(given.format("none").split())))) == 2
    assert not caplog.messages
