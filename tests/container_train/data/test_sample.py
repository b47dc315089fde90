"""The sample: real photographs from the wheel, no pixel shared between splits, the same every time."""

import itertools
from pathlib import Path

import pytest
from PIL import Image

from container_train.data import sample, splits
from container_train.data.labels import SPLITS

Box = tuple[int, int, int, int]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("name", sorted(sample.PHOTOGRAPHS))
def test_no_pixel_is_in_two_splits(name: str) -> None:
    with Image.open(sample.folder_of_photographs() / sample.PHOTOGRAPHS[name]) as picture:
        width, height = picture.size
    boxes = sample.crops(width, height, name, 0)
    assert {split: len(found) for split, found in boxes.items()} == sample.COUNTS
    for box in itertools.chain.from_iterable(boxes.values()):
        assert 0 <= box[0] < box[2] <= width
        assert 0 <= box[1] < box[3] <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not any(overlap(a, b) for a in boxes[one] for b in boxes[other])


def test_the_photographs_are_part_of_the_wheel() -> None:
    record = next(sample.folder_of_photographs().parents[1].glob("scikit_image-*.dist-info/RECORD")).read_text()
    for file in sample.PHOTOGRAPHS.values():
        assert f"skimage/data/{file}," in record


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        sample.write(tmp_path / name, seed)

    def content(name: str) -> dict[str, bytes]:
        root = tmp_path / name
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.jpg"))}

    one = content("one")
    assert one == content("same") != content("other")
    assert len(set(one.values())) == len(one) == len(sample.PHOTOGRAPHS) * sum(sample.COUNTS.values())
    found = splits.plan(tmp_path / "one")
    assert set(found.splits) == set(SPLITS)
    assert list(found.splits["train"])[:2] == ["001.astronaut", "002.brick"]
