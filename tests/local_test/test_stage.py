"""Folders of pictures into the tree that the platform gives a container."""

import json
from pathlib import Path

import pytest
from PIL import Image

from local_test import stage
from local_test.errors import LocalError


def fill(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name / f"{number:03d}.png")
    return root


def staged(tmp_path: Path, root: Path, **hyperparameters: str) -> stage.Staged:
    return stage.stage(tmp_path / "ml", str(root), hyperparameters, None, is_sample=False)


def counts(tree: Path) -> dict[str, int]:
    return {
        path.name: len([p for p in path.glob("*/*") if p.is_file()])
        for path in sorted((tree / "input" / "data").iterdir())
    }


def test_an_unsplit_folder_is_split_and_stays(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"cat": 10, "dog": 20})
    result = staged(tmp_path, root)
    assert counts(result.tree) == {"test": 3, "train": 24, "valid": 3}
    assert len(list(root.rglob("*.png"))) == 30
    assert "80/10/10" in result.notes[0]
    assert result.outside == {}


def test_a_split_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for name in ("train", "validation", "test"):
        fill(root / name, {"cat": 3, "dog": 3})
    result = staged(tmp_path, root)
    assert result.outside == {
        name: root / folder for name, folder in (("train", "train"), ("valid", "validation"), ("test", "test"))
    }
    assert counts(result.tree) == {}
    stage.link_outside(result)
    assert counts(result.tree) == {"train": 6, "valid": 6, "test": 6}
    assert (result.tree / "input" / "data" / "valid").resolve() == root / "validation"


def test_a_container_is_not_given_links_that_it_cannot_follow(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for name in ("train", "valid", "test"):
        fill(root / name, {"cat": 3, "dog": 3})
    elsewhere = fill(tmp_path / "elsewhere", {"cat": 1}) / "cat" / "000.png"
    (link := root / "valid" / "cat" / "link.png").symlink_to(elsewhere)
    result = staged(tmp_path, root)
    with pytest.raises(LocalError, match=f"{link} leads to {elsewhere}, which a container does not see: put copies"):
        stage.make_mount_points(result)
    link.unlink()
    link.symlink_to("000.png")
    result = stage.stage(tmp_path / "second", str(root), {}, None, is_sample=False)
    stage.make_mount_points(result)
    assert counts(result.tree) == {"train": 0, "valid": 0, "test": 0}


def test_missing_splits_are_taken_from_train(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(root / "train", {"cat": 20, "dog": 20})
    fill(root / "test", {"cat": 2, "dog": 2})
    result = staged(tmp_path, root)
    assert "no valid" in result.notes[0]
    assert result.outside == {"test": root / "test"}
    assert counts(result.tree) == {"train": 36, "valid": 4}
    names = [path.name for path in (result.tree / "input" / "data").glob("*/cat/*")]
    assert len(names) == len(set(names)) == 20


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "vehicles", {"car": 5, "train": 5})
    assert counts(staged(tmp_path, root).tree) == {"test": 2, "train": 6, "valid": 2}


def test_pictures_are_links_where_that_works(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"cat": 5, "dog": 5})
    result = staged(tmp_path, root)
    linked = next((result.tree / "input" / "data" / "train" / "cat").iterdir())
    assert linked.stat().st_ino == (root / "cat" / linked.name).stat().st_ino


def test_the_configuration_is_the_platforms(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"cat": 5, "dog": 5})
    (tmp_path / "w.pth").write_bytes(b"weights")
    tree = stage.stage(tmp_path / "ml", str(root), {"epochs": "2"}, tmp_path / "w.pth", is_sample=False).tree
    config = {path.stem: json.loads(path.read_text()) for path in (tree / "input" / "config").iterdir()}
    assert config["hyperparameters"] == {"sagemaker_container_log_level": "50", "epochs": "2"}
    assert set(config["inputdataconfig"]) == {"train", "valid", "test", "weights"}
    assert config["inputdataconfig"]["train"]["TrainingInputMode"] == "File"
    assert config["resourceconfig"]["hosts"] == [config["resourceconfig"]["current_host"]]
    assert (tree / "input" / "data" / "weights" / "w.pth").read_bytes() == b"weights"
    for folder in ("model", "output/data", "checkpoints"):
        assert (tree / folder).is_dir()


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"cat": 5, "dog": 5})
    before = sorted(tmp_path.rglob("*"))
    stage.check(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_staging_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="one class"):
        staged(tmp_path, fill(tmp_path / "mine", {"cat": 5}))


def broken(root: Path, kind: str) -> Path:
    match kind:
        case "no folders":
            root.mkdir()
        case "loose pictures":
            fill(root, {"x": 3})
            root = root / "x"
        case "one class":
            fill(root, {"cat": 5})
        case "few":
            fill(root, {"cat": 5, "dog": 2})
        case "too deep":
            fill(root / "a", {"cat": 5, "dog": 5})
            fill(root / "b", {"cat": 5, "dog": 5})
        case "wrapped":
            fill(root / "dogImages" / "train", {"cat": 5, "dog": 5})
        case "no pictures":
            (root / "cat").mkdir(parents=True)
            (root / "dog").mkdir()
        case "empty class":
            fill(root, {"cat": 5, "dog": 5, "emu": 0})
        case "unknown class":
            fill(root / "train", {"cat": 5, "dog": 5})
            fill(root / "valid", {"cat": 5, "emu": 5})
        case "zip":
            root = root.with_suffix(".zip")
            root.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["not there"]),
        ("zip", ["a file", "prepare_data.py"]),
        ("no folders", ["no class folders", "CLASS"]),
        ("loose pictures", ["3 pictures but no class folders"]),
        ("one class", ["one class", "cat"]),
        ("few", ["dog", "2 picture", "at least 3"]),
        ("too deep", ["holds folders"]),
        ("wrapped", ["dogImages", "instead"]),
        ("no pictures", ["no pictures"]),
        ("empty class", ["emu", "no pictures"]),
        ("unknown class", ["emu", "training pictures"]),
    ],
)
def test_what_cannot_be_trained_on_is_named_in_one_line(tmp_path: Path, kind: str, words: list[str]) -> None:
    root = broken(tmp_path / "mine", kind)
    with pytest.raises(LocalError) as caught:
        stage.check(root)
    assert caught.value.code == 2
    text = str(caught.value)
    assert "\n" not in text
    assert str(tmp_path) in text
    for word in words:
        assert word in text


def test_reports_are_copied_with_the_profiler_s_where_there_is_one(tmp_path: Path) -> None:
    output = tmp_path / "ml" / "output" / "data"
    output.mkdir(parents=True)
    with pytest.raises(LocalError, match=r"training wrote no output/data/report\.html"):
        stage.copy_reports(tmp_path / "ml", tmp_path)
    (output / "report.html").write_text("report")
    stage.copy_reports(tmp_path / "ml", tmp_path)
    assert stage.fired_rules(tmp_path) is None
    rules = [
        {"rule": "overfit", "status": "fired", "reason": "at step 3"},
        {"rule": "dead_relu", "status": "ok", "reason": ""},
    ]
    (output / "rules.json").write_text(json.dumps({"rules": rules}))
    (output / "profiler-report.html").write_text("page")
    stage.copy_reports(tmp_path / "ml", tmp_path)
    assert (tmp_path / "profiler-report.html").read_text() == "page"
    assert stage.fired_rules(tmp_path) == ["overfit (at step 3)"]
