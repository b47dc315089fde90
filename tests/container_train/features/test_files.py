"""Features on disk: what is read back, what a kill leaves, what damage does."""

import threading
from pathlib import Path

import pytest
import torch

from container_train.features.files import FeatureFile, Features, locked

ROWS = 10
SAMPLE = torch.zeros(1, 3, dtype=torch.bfloat16), torch.zeros(1, 2, 2)
FIELDS = {"data": "abc", "view": "plain"}


def features(rows: int = ROWS) -> Features:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 3, generator=generator).bfloat16()[:rows], torch.randn(ROWS, 2, 2, generator=generator)[
        :rows
    ]


def entry(folder: Path, **fields: str) -> FeatureFile:
    return FeatureFile(folder, {**FIELDS, **fields}, ROWS, SAMPLE)


def chunk(start: int, end: int) -> Features:
    first, second = features()
    return first[start:end], second[start:end]


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A folder with an entry of which 6 rows are written, in two chunks."""
    written = entry(tmp_path)
    assert written.done() == 0
    written.resume(0)
    written.append(chunk(0, 4))
    written.append(chunk(4, 6))
    return tmp_path


def finished(folder: Path) -> FeatureFile:
    written = entry(folder)
    done = written.done()
    written.resume(done)
    written.append(chunk(done, ROWS))
    return written


def test_what_was_written_is_read_to_the_bit(half: Path) -> None:
    finished(half)
    read = entry(half).read()
    assert read is not None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(read, features(), strict=True))
    assert [feature.dtype for feature in read] == [torch.bfloat16, torch.float32]


def test_what_is_half_written_is_not_read_but_gone_on_with(half: Path) -> None:
    assert entry(half).read() is None
    assert entry(half).done() == 6


def test_rows_that_not_all_files_have_are_cut_off(half: Path) -> None:
    with (entry(half).path / "0.bin").open("ab") as file:
        file.write(b"killed before the other file was written")
    finished(half)
    read = entry(half).read()
    assert read is not None
    assert torch.equal(read[0], features()[0])


def test_a_file_that_is_cut_short_or_missing_is_not_read(half: Path) -> None:
    path = finished(half).path
    (path / "1.bin").write_bytes((path / "1.bin").read_bytes()[:-1])
    assert entry(half).read() is None
    assert entry(half).done() == ROWS - 1
    (path / "1.bin").unlink()
    assert entry(half).read() is None
    finished(half)
    assert entry(half).read() is not None


def test_a_changed_byte_is_noticed_and_all_is_written_anew(half: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = finished(half).files[1]
    assert entry(half).read() is not None
    whole = bytearray(file.read_bytes())
    whole[50] ^= 1
    file.write_bytes(whole)
    damaged = entry(half)
    assert damaged.read() is None
    assert f"{damaged.path} is damaged, and computed again" in caplog.text
    assert damaged.done() == 0
    damaged.resume(0)
    damaged.append(features())
    read = damaged.read()
    assert read is not None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(read, features(), strict=True))


def test_no_rows_are_read_without_files(tmp_path: Path) -> None:
    read = FeatureFile(tmp_path, FIELDS, 0, SAMPLE).read()
    assert read is not None
    assert [tuple(feature.shape) for feature in read] == [(0, 3), (0, 2, 2)]


def test_other_settings_are_another_entry(half: Path) -> None:
    assert entry(half, view="flip").path != entry(half).path
    assert FeatureFile(half, FIELDS, ROWS, SAMPLE[:1]).path != entry(half).path


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
