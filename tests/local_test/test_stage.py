"""Folders of images into the tree that the platform gives a container, and reports out of it."""

import json
import shutil
from pathlib import Path

import pytest

from container_train.data.labels import SPLITS
from container_train.errors import DataError
from local_test import results, stage
from local_test.errors import LocalError
from tests import trees


def channels(tree: Path) -> dict[str, int]:
    return {path.name: len(list(path.glob("*/*"))) for path in sorted((tree / "input" / "data").iterdir())}


def test_an_unsplit_folder_is_split_and_stays(tmp_path: Path) -> None:
    root = trees.fill(tmp_path / "mine", {"x": 10}) / "x"
    result = stage.stage(tmp_path / "ml", str(root), {}, None)
    assert channels(result.tree) == {"test": 3, "train": 24, "valid": 3}
    assert len(list(root.rglob("*.jpg"))) == 30
    assert "is not split" in result.notes[0]
    assert result.outside == {}


def test_a_split_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    root = trees.fill(tmp_path / "mine", {"train": 3, "validation": 3, "test": 3})
    (root / "train" / "loose.jpg").touch()
    result = stage.stage(tmp_path / "ml", str(root), {}, None)
    assert result.notes == [], "the training says it"
    assert result.outside == {"train": root / "train", "valid": root / "validation", "test": root / "test"}
    assert channels(result.tree) == {}
    stage.link_outside(result)
    assert channels(result.tree) == {"train": 9, "valid": 9, "test": 9}
    assert (result.tree / "input" / "data" / "valid").resolve() == root / "validation"


@pytest.mark.parametrize("kind", ["file", "class folder"])
def test_a_container_gets_what_links_lead_to(tmp_path: Path, kind: str) -> None:
    root = trees.fill(tmp_path / "mine", {name: 3 for name in SPLITS})
    (root / "train" / "01.red" / "link.jpg").symlink_to("000.jpg")  # the container can follow it
    elsewhere = trees.fill(tmp_path / "elsewhere", {"x": 1}) / "x" / "01.red"
    if kind == "file":
        (root / "valid" / "01.red" / "link.jpg").symlink_to(elsewhere / "000.jpg")
    else:
        shutil.rmtree(root / "valid" / "01.red")
        (root / "valid" / "01.red").symlink_to(elsewhere)
    result = stage.stage(tmp_path / "ml", str(root), {}, None)
    stage.make_mount_points(result)
    assert channels(result.tree) == {"train": 0, "valid": 10 if kind == "file" else 7, "test": 0}
    assert not any(path.is_symlink() for path in (result.tree / "input" / "data").rglob("*"))
    as_process = stage.stage(tmp_path / "second", str(root), {}, None, host=stage.PROCESS_HOST)
    assert set(as_process.outside) == set(SPLITS), "here the links can be followed"


def test_the_configuration_is_the_platforms(tmp_path: Path) -> None:
    root = trees.fill(tmp_path / "mine", {"x": 5}) / "x"
    (tmp_path / "w.pth").write_bytes(b"weights")
    tree = stage.stage(tmp_path / "ml", str(root), {"epochs": "2"}, tmp_path / "w.pth").tree
    config = {path.stem: json.loads(path.read_text()) for path in (tree / "input" / "config").iterdir()}
    assert config["hyperparameters"] == {"sagemaker_container_log_level": "50", "epochs": "2"}
    assert set(config["inputdataconfig"]) == {*SPLITS, "weights"}
    assert config["inputdataconfig"]["train"]["TrainingInputMode"] == "File"
    assert config["resourceconfig"]["hosts"] == [config["resourceconfig"]["current_host"]]
    assert (tree / "input" / "data" / "weights" / "w.pth").read_bytes() == b"weights"
    for folder in ("model", "output/data", "checkpoints"):
        assert (tree / folder).is_dir()


def test_what_cannot_be_trained_on_makes_no_tree(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        stage.stage(tmp_path / "ml", str(tmp_path / "mine"), {}, None)
    assert not (tmp_path / "ml").exists()


def test_reports_are_copied_with_the_profiler_s_where_there_is_one(tmp_path: Path) -> None:
    output = tmp_path / "ml" / "output" / "data"
    output.mkdir(parents=True)
    with pytest.raises(LocalError, match=r"training wrote no output/data/report\.html"):
        results.copy_reports(tmp_path / "ml", tmp_path)
    (output / "report.html").write_text("report")
    assert results.copy_reports(tmp_path / "ml", tmp_path) is None
    rules = [
        {"rule": "overfit", "status": "fired", "severity": "warning", "reason": "at step 3"},
        {"rule": "step_outlier", "status": "fired", "severity": "information", "reason": "at step 4"},
        {"rule": "dead_relu", "status": "ok", "reason": ""},
    ]
    (output / "rules.json").write_text(json.dumps({"rules": rules}))
    (output / "profiler-report.html").write_text("page")
    fired = results.copy_reports(tmp_path / "ml", tmp_path)
    assert fired == rules[:2]
    assert results.in_words(fired) == "overfit (at step 3); worth knowing: step_outlier"
    assert results.in_words(fired[1:]) == "no problem found; worth knowing: step_outlier"
    assert results.in_words([]) == "no problem found"
    assert (tmp_path / "profiler-report.html").read_text() == "page"
