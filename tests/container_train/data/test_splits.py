"""Folders of class folders: what is found, how it is split, and what cannot be trained on."""

import time
from pathlib import Path

import pytest
from PIL import Image

from container_train.data import splits
from container_train.data.splits import Plan
from container_train.errors import DataError


def fill(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name / f"{number:03d}.png")
    return root


def images(plan: Plan) -> list[str]:
    return [f"{place} {file}" for place, file in plan.files()]


def test_a_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"a": 20, "b": 10, "c": 3})
    one = splits.plan(root, seed=1)
    assert images(one) == images(splits.plan(root, seed=1)) != images(splits.plan(root, seed=2))
    counts = {split: [len(files) for files in classes.values()] for split, classes in one.splits.items()}
    assert counts == {"train": [16, 8, 1], "valid": [2, 1, 1], "test": [2, 1, 1]}
    assert len({file for _, file in one.files()}) == 33
    assert "80% train, 10% valid, 10% test of every class (seed 1)" in one.notes[0]
    assert not one.folders
    # Another class leaves the split of the others as it was.
    before = [line for line in images(one) if "/a/" in line]
    fill(root, {"d": 5})
    assert [line for line in images(splits.plan(root, seed=1)) if "/a/" in line] == before


def test_a_split_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        fill(tmp_path / name, {"cat": 3, "dog": 3})
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "train" / "loose.jpg").touch()
    plan = splits.plan(tmp_path)
    assert plan.is_whole
    assert plan.folders == {
        "train": tmp_path / "train", "valid": tmp_path / "validation", "test": tmp_path / "test",
    }  # fmt: skip
    assert splits.count(plan.splits) == {"train": 6, "valid": 6, "test": 6}
    assert plan.beside == ["not used: readme.txt, beside the folders of the splits"]
    assert plan.notes[1].startswith("not used: 1 file (train/loose.jpg), beside the class folders")
    fill(tmp_path / "valid", {"cat": 3, "dog": 3})
    with pytest.raises(DataError, match="valid and validation are both taken for valid: rename or remove one"):
        splits.plan(tmp_path)


def test_missing_splits_are_taken_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 20, "dog": 20})
    fill(tmp_path / "val", {"cat": 2, "dog": 2})
    plan = splits.plan(tmp_path)
    assert splits.count(plan.splits) == {"train": 36, "valid": 4, "test": 4}
    assert plan.folders == {"valid": tmp_path / "val"}
    assert plan.notes == [f"{tmp_path} has no test: taken from train (seed 0)"]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "vehicles", {"car": 5, "train": 5})
    assert splits.count(splits.plan(root).splits) == {"train": 6, "valid": 2, "test": 2}


def test_it_is_laid_out_by_links_where_that_works(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", {"cat": 5, "dog": 5})
    fill(root / "cat" / "more", {"deep": 5})
    splits.lay_out(splits.plan(root).splits, tmp_path / "out")
    made = [path for path in (tmp_path / "out").rglob("*.png") if path.parent.name == "cat"]
    assert len(made) == 10, "images of one name in two folders are both there"
    assert {path.stat().st_ino for path in made} == {path.stat().st_ino for path in (root / "cat").rglob("*.png")}


def test_classes_whose_names_look_the_same(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "train", {composed: 5, decomposed: 6, "tea": 6, "Tea": 6})
    fill(tmp_path / "val", {decomposed: 2, "tea": 2, "Tea": 2})
    plan = splits.plan(tmp_path)
    assert set(plan.splits["train"]) == {"Tea", composed, "tea"}
    assert sum(len(classes[composed]) for classes in plan.splits.values()) == 13
    said = "\n".join(plan.notes)
    assert f"train/{decomposed}: 2 folders have this name in different Unicode forms; they are one class" in said
    assert said.count("the classes Tea and tea differ only in upper and lower case: they are two classes") == 1


def broken(root: Path, kind: str) -> Path:
    match kind:
        case "no folders":
            root.mkdir()
        case "loose":
            return fill(root, {"x": 3}) / "x"
        case "one class":
            fill(root, {"cat": 5})
        case "few":
            fill(root, {"cat": 5, "dog": 2})
        case "too deep":
            fill(root / "a", {"cat": 5, "dog": 5})
            fill(root / "b", {"cat": 5, "dog": 5})
        case "wrapped":
            fill(root / "dogImages" / "train", {"cat": 5, "dog": 5})
        case "no images":
            fill(root, {"cat": 0, "dog": 0})
        case "empty class":
            fill(root, {"cat": 5, "dog": 5, "emu": 0})
        case "unknown class":
            fill(root / "train", {"cat": 5, "dog": 5})
            fill(root / "valid", {"cat": 5, "emu": 5})
        case "a file for a split":
            fill(root, {"valid/cat": 5, "valid/dog": 5, "test/cat": 5, "test/dog": 5})
            (root / "train").touch()
        case "empty split":
            fill(root, {"train/cat": 5, "train/dog": 5, "valid/cat": 5, "valid/dog": 5, "test": 0})
        case "zip":
            root = root.with_suffix(".zip")
            root.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such folder"]),
        ("zip", ["a file", "prepare_data.py"]),
        ("no folders", ["no class folders", "CLASS"]),
        ("loose", ["3 images but no class folders"]),
        ("one class", ["one class", "cat"]),
        ("few", ["dog", "2 image", "at least 3"]),
        ("too deep", ["holds folders"]),
        ("wrapped", ["dogImages", "instead"]),
        ("no images", ["no images"]),
        ("empty class", ["emu", "no images"]),
        ("unknown class", ["emu", "training images"]),
        ("a file for a split", ["mine/train is a file, not a folder of class folders"]),
        ("empty split", ["mine/test has no class folders: expected ", "mine/test/CLASS/image.jpg"]),
    ],
)
def test_what_cannot_be_trained_on_is_named_in_one_line(tmp_path: Path, kind: str, words: list[str]) -> None:
    root = broken(tmp_path / "mine", kind)
    with pytest.raises(DataError) as caught:
        splits.plan(root)
    text = str(caught.value)
    assert "\n" not in text
    for word in [*words, str(tmp_path)]:
        assert word in text
    assert "test/train" not in text


def test_many_images_of_one_name_are_numbered_in_a_moment() -> None:
    paths = [Path(f"{number}/a.jpg") for number in range(30_000)]
    paths[2:2] = [Path("x/A-3.jpg")]
    started = time.process_time()
    places = [place for place, _ in splits.placed({"train": {"cat": paths}})]
    assert time.process_time() - started < 10  # 0.2 s of a processor
    assert places[:5] == [f"train/cat/{name}" for name in ("a.jpg", "a-2.jpg", "A-3.jpg", "a-4.jpg", "a-5.jpg")]
    assert len({place.lower() for place in places}) == len(paths)
