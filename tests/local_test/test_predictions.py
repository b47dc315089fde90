"""The images that are posted, and the table of the answers."""

from pathlib import Path

import pytest
from PIL import Image

from local_test import predictions
from local_test.errors import LocalError
from local_test.predictions import Row

LABELS = [f"class{number}" for number in range(1, 121)]


def fill(root: Path, classes: int, pictures: int) -> Path:
    for number in range(1, classes + 1):
        folder = root / f"{number:03d}.class{number}"
        folder.mkdir(parents=True)
        for index in range(pictures):
            Image.new("RGB", (8, 8), (index, number, 0)).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize(("classes", "pictures", "rows"), [(10, 3, 10), (120, 1, 10), (3, 9, 10), (2, 2, 4)])
def test_pictures_are_spread_over_the_classes(tmp_path: Path, classes: int, pictures: int, rows: int) -> None:
    chosen = predictions.choose(fill(tmp_path, classes, pictures), LABELS)
    assert len({path for path, _ in chosen}) == len(chosen) == rows
    labels = [label for _, label in chosen]
    assert len(set(labels)) == min(classes, predictions.ROWS)
    assert {labels[0], labels[-1]} == {"class1", f"class{classes}"}
    for path, label in chosen:
        assert path.parent.name.endswith(f".{label}")


def test_what_cannot_be_posted_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, 2, 2)
    (tmp_path / "001.class1" / "0.png").write_bytes(b"no picture")
    (tmp_path / "002.class2" / "0.png").write_bytes(bytes(predictions.MAX_BYTES + 1))
    assert [path.name for path, _ in predictions.choose(tmp_path, LABELS)] == ["1.png", "1.png"]
    for path in tmp_path.glob("*/1.png"):
        path.write_bytes(b"")
    with pytest.raises(LocalError, match="no readable image"):
        predictions.choose(tmp_path, LABELS)


def test_columns_stand_under_one_another() -> None:
    rows = [Row("a/long/name.jpg", "cat", "cat", 0.98765), Row("b.jpg", "dog", "wolfhound", 0.5)]
    lines = predictions.render(rows).splitlines()
    assert lines[0].split("  ")[0] == "image"
    assert lines[0].index("probability") == lines[2].index("0.988") == lines[3].index("0.500")
    assert lines[-1] == "1 of 2 correct"


def test_a_class_is_called_as_the_model_calls_it(tmp_path: Path) -> None:
    """The folders of train, which are not looked at, decide whether digits in front are a running number."""
    for name in ("0-2", "01.cat", "3-9"):
        fill(tmp_path, 1, 1)
        (tmp_path / "001.class1").rename(tmp_path / name)
    chosen = predictions.choose(tmp_path, ["0-2", "cat", "3-9"])
    assert {(path.parent.name, label) for path, label in chosen} == {("0-2", "0-2"), ("01.cat", "cat"), ("3-9", "3-9")}
