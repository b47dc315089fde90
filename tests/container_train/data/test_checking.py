"""Images are checked before the training: all of them, or of a large set some, by all processes together."""

import logging
import os
from pathlib import Path

import pytest

from container_serve.image import decode
from container_train.data import checking, dataset
from container_train.distributed.process_group import ProcessGroup
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from tests import trees
from tests.container_train.ranks import in_processes


@pytest.fixture
def tree(tmp_path: Path) -> SageMakerPaths:
    return SageMakerPaths(trees.tree(tmp_path / "ml"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    found: list[bytes] = []

    def look(body: bytes) -> object:
        found.append(body)
        return decode(body)

    monkeypatch.setattr(checking, "decode", look)
    return found


def test_of_a_large_set_some_are_decoded(
    tree: SageMakerPaths, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checking, "MOST", 18)  # every third of 54
    (tree.channels / "train" / "01.red" / "001.jpg").write_bytes(b"not looked at")
    with caplog.at_level(logging.INFO):
        found = dataset.read(tree)
        found.tell()
    assert len(decoded) == 18
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert {name: len(split) for name, split in found.checked.items()} == {"train": 10, "valid": 4, "test": 4}
    assert [len(split.hashes) for split in found.checked.values()] == [10 * 32, 4 * 32, 4 * 32]
    assert set(found.checked["train"].targets.tolist()) == {0, 1, 2}
    assert "data: 18 of 54 images were decoded to check them; training checks the others" in caplog.text
    for number in (0, 3):
        (tree.channels / "train" / "01.red" / f"{number:03}.jpg").write_bytes(b"no image")
    with pytest.raises(TrainError, match=r"2 of 18 files are not readable images, more than 5%: train/01.red/000.jpg"):
        dataset.read(tree)


def test_the_fingerprint_of_a_large_set_follows_names_and_sizes(
    tree: SageMakerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MOST", 18)
    before, changed = dataset.read(tree).fingerprint, tree.channels / "test" / "01.red" / "001.jpg"
    os.utime(changed, (1, 1))
    assert dataset.read(tree).fingerprint == before, "a restarted job downloads its files anew"
    changed.write_bytes(changed.read_bytes() + b"\0")
    longer = dataset.read(tree).fingerprint
    changed.rename(changed.with_name("002b.jpg"))
    assert len({before, longer, dataset.read(tree).fingerprint}) == 3


def test_nothing_of_a_stream_is_read_before_the_training(tree: SageMakerPaths, decoded: list[bytes]) -> None:
    modes = tree.config / "inputdataconfig.json"
    modes.write_text(modes.read_text().replace('"File"', '"FastFile"'))
    (tree.channels / "train" / "01.red" / "001.jpg").write_bytes(b"not looked at")
    found = dataset.read(tree)
    assert decoded == []
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert (found.bad, found.leaks) == ({}, [])


def read_as(group: ProcessGroup, base: Path) -> tuple[str, list[str], list[str], int, str]:
    """One of the processes: what it finds, how many images it decodes, and the error where images differ."""
    count = 0

    def look(body: bytes) -> object:
        nonlocal count
        count += 1
        return decode(body)

    setattr(checking, "decode", look)  # noqa: B010
    os.environ["BYOC_FEATURE_CACHE"] = str(base.parent / "known")
    found = dataset.read(SageMakerPaths(base), group)
    lost = base.parent / "lost"
    try:
        dataset.read(SageMakerPaths(lost if group.rank == 2 else base), group)
        error = ""
    except TrainError as raised:
        error = str(raised)
    return found.fingerprint, list(found.bad), [str(path) for path in found.splits["train"].paths], count, error


def test_processes_share_the_check_and_know_the_same(tree: SageMakerPaths) -> None:
    broken = tree.channels / "train" / "01.red" / "004.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    trees.tree(tree.base.parent / "lost", pictures={"train": 9, "valid": 4, "test": 4})
    first, *others = in_processes(3, read_as, tree.base)
    alone = dataset.read(tree)
    assert first[0] == alone.fingerprint
    assert first[1] == ["train/01.red/004.jpg"] == list(alone.bad)
    assert first[2] == list(map(str, alone.splits["train"].paths))
    assert first[3] == 18, "each decodes its share, and nothing in the second reading"
    assert first[4].startswith("process 2 of 3 has other images than the first: every host needs all of them")
    assert all((other[:3], other[4]) == (first[:3], first[4]) for other in others)


def test_another_trial_of_a_search_decodes_nothing_unless_a_file_has_changed(
    tree: SageMakerPaths, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYOC_FEATURE_CACHE", str(tree.base.parent / "search"))
    broken = tree.channels / "train" / "01.red" / "000.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    found = dataset.read(tree)
    assert len(decoded) == 3 * 18
    again = dataset.read(tree)
    assert (again.fingerprint, again.bad) == (found.fingerprint, found.bad)
    assert len(found.bad) == 1
    assert [list(split.paths) for split in again.splits.values()] == [list(s.paths) for s in found.splits.values()]
    assert len(decoded) == 3 * 18
    broken.write_bytes(whole)
    mended = dataset.read(tree)
    assert not mended.bad
    assert mended.fingerprint != found.fingerprint
    for kept in (tree.base.parent / "search").iterdir():
        kept.write_text("{ not json")
    assert dataset.read(tree).fingerprint == mended.fingerprint
    monkeypatch.setenv("BYOC_FEATURE_CACHE", str(broken))
    assert dataset.read(tree).fingerprint == mended.fingerprint, "a folder that cannot be written"
