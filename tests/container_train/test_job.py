import json
from pathlib import Path

import pytest

from container_train import command_line, job
from container_train.paths import SageMakerPaths
from tests import trees


@pytest.fixture
def tree(tmp_path: Path) -> SageMakerPaths:
    (tmp_path / "input" / "data").mkdir(parents=True)
    trees.configure(tmp_path, {})
    return SageMakerPaths(tmp_path)


@pytest.mark.parametrize(
    ("config", "node"),
    [
        ({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}, "algo-2"),
        ({"current_host": "b", "hosts": ["b", "a"]}, "algo-2"),
        ({"current_host": "localhost", "hosts": ["localhost"]}, "algo-1"),
        ({}, "algo-1"),
    ],
)
def test_nodes_have_names_that_the_readers_know(tree: SageMakerPaths, config: dict[str, object], node: str) -> None:
    (tree.config / "resourceconfig.json").write_text(json.dumps(config))
    assert job.node(tree) == node


def test_what_is_known_at_the_start(tree: SageMakerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "dogs-1")
    found = job.describe(tree, command_line.parse(["--debug", "off", "--lr", "0.5"]))
    assert (found["job"], found["host"], found["hosts"], found["status"]) == (
        "dogs-1",
        "localhost",
        ["localhost"],
        "running",
    )
    assert found["debug"]["state"] == "off"
    assert found["hyperparameters"]["lr"] == 0.5
    assert found["hyperparameters"]["weights"] == "DEFAULT"
    assert 0 < found["cpus"] < 10_000
    assert found["memory_bytes"] > 2**26


def test_a_file_takes_precedence_over_the_hyperparameter_weights(tree: SageMakerPaths) -> None:
    (tree.channels / "weights").mkdir()
    (tree.channels / "weights" / "dogs.pth").touch()
    hp = command_line.parse([])
    assert job.describe(tree, hp)["hyperparameters"] == {**hp.to_dict(), "weights": "file dogs.pth"}
