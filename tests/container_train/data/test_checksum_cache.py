"""Pictures that were checked before are not decoded again, unless they have changed."""

from pathlib import Path

import pytest

from container_serve.image import decode
from container_train.data import checksum_cache, dataset
from container_train.data.checksum_cache import ChecksumCache
from container_train.paths import SageMakerPaths
from tests import trees


def test_the_second_reading_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, folder = SageMakerPaths(trees.tree(tmp_path / "ml")), tmp_path / "shared"
    broken = tree.channels / "train" / "01.red" / "000.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    decoded: list[bytes] = []

    def look(body: bytes) -> object:
        decoded.append(body)
        return decode(body)

    monkeypatch.setattr(checksum_cache, "decode", look)
    first = ChecksumCache(folder)
    found = dataset.read(tree, known=first)
    first.save()
    assert len(decoded) == 3 * 18
    assert len(found.bad) == 1
    decoded.clear()
    again = dataset.read(tree, known=ChecksumCache(folder))
    assert (again.fingerprint, again.bad) == (found.fingerprint, found.bad)
    assert {name: list(split.paths) for name, split in again.splits.items()} == {
        name: list(split.paths) for name, split in found.splits.items()
    }
    assert len(decoded) == 1, "only what could not be read is tried again"
    decoded.clear()
    broken.write_bytes(whole)
    mended = dataset.read(tree, known=ChecksumCache(folder))
    assert not mended.bad
    assert mended.fingerprint != found.fingerprint
    assert mended.fingerprint == dataset.read(tree).fingerprint


def test_what_is_damaged_or_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    tree = SageMakerPaths(trees.tree(tmp_path / "ml"))
    (tmp_path / "images.json").write_text("{ not json")
    assert len(dataset.read(tree, known=ChecksumCache(tmp_path)).splits["train"]) == 30
    (tmp_path / "file").write_text("")
    known = ChecksumCache(tmp_path / "file")
    dataset.read(tree, known=known)
    known.save()
