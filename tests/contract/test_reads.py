"""In FastFile mode every read of a file is a request to S3: each file is read once an epoch."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision

from container_train.features.extractor import CHECKED, OPENVINO_IMAGES
from tests import trees
from tests.faults import hosts

# In every process of the job, those that decode too: the name of each file below the channels that is opened.
COUNTING = """
import os, sys

log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "/input/data/" in arguments[0]:
        os.write(log, (arguments[0].partition("/input/data/")[2] + "\\n").encode())

sys.addaudithook(note)
"""
ALL_LAYERS = {"freeze-until": "none", "batch-norm": "frozen"}
PICTURES = {"train": 9, "valid": 5, "test": 4}  # of each of three classes: four batches of 8, of which the last has 3
trees_tree = trees.tree
full = pytest.mark.full


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of the files that were opened, one a line."""
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "sitecustomize.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "counting"))
    monkeypatch.setenv("OPENED", str(tmp_path / "opened"))
    return tmp_path / "opened"


def tree(base: Path, hyperparameters: Mapping[str, str] | None, pictures: Mapping[str, int] | None) -> Path:
    """A tree in FastFile mode with weights: random layers would be fitted to some images first."""
    file = base / "input" / "data" / "weights" / "backbone.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), file)
    trees_tree(base, hyperparameters, pictures)
    modes = base / "input" / "config" / "inputdataconfig.json"
    modes.write_text(modes.read_text().replace('"File"', '"FastFile"'))
    return base


def train(base: Path, hyperparameters: Mapping[str, str], pictures: Mapping[str, int]) -> None:
    given = {"epochs": "2", "workers": "2", "measure": "none", **hyperparameters}
    tree(base, given, pictures)
    words = [word for name, value in {**trees.SMALL, **given}.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base)}
    command = [sys.executable, "-m", "container_train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def reads(opened: Path) -> dict[str, Counter[int]]:
    """The number of files of each split by the times that they were read."""
    times = Counter(name for name in opened.read_text().split() if not name.startswith("weights/"))
    found: dict[str, Counter[int]] = {}
    for name, count in times.items():
        found.setdefault(name.partition("/")[0], Counter())[count] += 1
    return found


@pytest.mark.parametrize(
    ("hyperparameters", "times"),
    [
        (ALL_LAYERS, 2),
        ({"feature-cache": "on", "augment": "crop", "augment-views": "2"}, 1),
        pytest.param({"feature-cache": "off"}, 2, marks=full),
        pytest.param({"feature-cache": "on", "workers": "0"}, 1, marks=full),
        # The new layer alone on cached features, then all layers.
        pytest.param({"recipe": "finetune", "head-epochs": "2", "batch-norm": "frozen"}, 3, marks=full),
        pytest.param({**ALL_LAYERS, "checkpoint-every": "1", "patience": "1"}, 2, marks=full),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else str(value),
)
def test_each_file_is_read_once_an_epoch(
    hyperparameters: dict[str, str], times: int, opened: Path, tmp_path: Path
) -> None:
    """With cached features once for all epochs and views."""
    train(tmp_path / "ml", hyperparameters, PICTURES)
    assert reads(opened) == {"train": {times: 27}, "valid": {times: 15}}


def test_the_export_reads_valid_and_test_once_more(opened: Path, tmp_path: Path) -> None:
    """And the report some images of test, for its galleries."""
    train(tmp_path / "ml", {**ALL_LAYERS, "measure": "full"}, PICTURES)
    found = reads(opened)
    assert (found["train"], found["valid"]) == ({2: 27}, {3: 15})
    assert sum(found["test"].values()) == 12
    assert max(found["test"]) <= 4  # shown as a mistake, with its map, and in a pair of classes


@full
def test_where_openvino_is_checked_a_few_files_are_read_twice(opened: Path, tmp_path: Path) -> None:
    per_class = -(-OPENVINO_IMAGES // 3)
    pictures = {"train": per_class, "valid": 2, "test": 1}
    train(tmp_path / "ml", {"feature-cache": "on", "amp": "auto"}, pictures)
    assert reads(opened) == {"train": {1: 3 * per_class - CHECKED, 2: CHECKED}, "valid": {1: 6}}


@pytest.mark.parametrize(
    ("hyperparameters", "times", "again"),
    [
        (ALL_LAYERS, 2, 0),
        pytest.param({"feature-cache": "on"}, 1, 0, marks=full),
        # Each process reads the image before its first, too: of four batches in two epochs, twice.
        pytest.param({**ALL_LAYERS, "mixup": "0.2"}, 2, 16, marks=full),
    ],
    ids=["all layers", "cached", "mixed"],
)
def test_several_hosts_share_the_reads(
    hyperparameters: dict[str, str], times: int, again: int, opened: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = {"epochs": "2", "workers": "1", "measure": "none", **hyperparameters}
    monkeypatch.setattr(trees, "tree", tree)
    with hosts.job("process", tmp_path / "jobs", 2, given, PICTURES) as jobs:
        assert hosts.finish(jobs) == [0, 0], "\n".join(job.text() for job in jobs)
    found = reads(opened)
    assert found["valid"] == {times: 15}
    assert sum(count * files for count, files in found["train"].items()) == 27 * times + again
    assert again or found["train"] == {times: 27}
