"""Features on disk: what is read back, and what a kill leaves."""

import contextlib
import threading
from pathlib import Path

import pytest
import torch

from container_train.features.files import FeatureFile, Features, locked

ROWS = 10
SAMPLE = torch.zeros(1, 3, dtype=torch.bfloat16), torch.zeros(1, 2, 2)
FIELDS = {"data": "abc", "view": "plain"}


def features() -> Features:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 3, generator=generator).bfloat16(), torch.randn(ROWS, 2, 2, generator=generator)


def entry(folder: Path, **fields: str) -> FeatureFile:
    return FeatureFile(folder, {**FIELDS, **fields}, ROWS, SAMPLE)


@pytest.fixture
def finished(tmp_path: Path) -> FeatureFile:
    written = entry(tmp_path)
    assert written.read() is None
    fill(written)
    return written


def fill(written: FeatureFile) -> None:
    with written.writing() as rows:
        for ours, theirs in zip(rows, features(), strict=True):
            ours[:] = theirs


def test_what_was_written_is_read_to_the_bit(finished: FeatureFile) -> None:
    read = entry(finished.path.parent).read()
    assert read is not None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(read, features(), strict=True))
    assert [feature.dtype for feature in read] == [torch.bfloat16, torch.float32]
    assert list(finished.path.parent.iterdir()) == [finished.path]


def test_what_is_half_written_is_not_read(tmp_path: Path) -> None:
    written = entry(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), written.writing():
        assert written.read() is None
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (written.path.with_suffix(".tmp") / "0.bin").mkdir(parents=True)  # of a process that was killed
    assert written.read() is None
    fill(written)
    assert written.read() is not None


def test_a_file_that_is_cut_short_or_missing_is_not_read_and_written_anew(finished: FeatureFile) -> None:
    second = finished.path / "1.bin"
    second.write_bytes(second.read_bytes()[:-1])
    assert finished.read() is None
    second.unlink()
    assert finished.read() is None
    fill(finished)
    assert finished.read() is not None


def test_no_rows_are_read_without_files(tmp_path: Path) -> None:
    read = FeatureFile(tmp_path, FIELDS, 0, SAMPLE).read()
    assert read is not None
    assert [tuple(feature.shape) for feature in read] == [(0, 3), (0, 2, 2)]


def test_other_settings_are_another_entry(tmp_path: Path) -> None:
    assert entry(tmp_path, view="flip").path != entry(tmp_path).path
    assert FeatureFile(tmp_path, FIELDS, ROWS, SAMPLE[:1]).path != entry(tmp_path).path


def test_only_one_writes(tmp_path: Path) -> None:
    waited = threading.Event()
    order: list[str] = []

    def second() -> None:
        with locked(entry(tmp_path), waited.set):
            order.append("second")

    with locked(entry(tmp_path), lambda: pytest.fail("nobody else is there")):
        other = threading.Thread(target=second)
        other.start()
        assert waited.wait(60)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
