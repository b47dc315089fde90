"""Temporary folders, and those that were left by programs which were killed."""

import tempfile
from pathlib import Path

import pytest

from container_serve.errors import ServeError
from container_serve.scratch import LOCK, folder, run_directory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["byoc-serve-1", "byoc-int8-2", "byoc-ranks-3", ".byoc-4"])
def test_folders_without_their_program_are_removed_and_others_stay(here: Path, name: str) -> None:
    abandoned, beginning, foreign = here / name, here / "byoc-serve-new", here / "other"
    for each in (abandoned, beginning, foreign):
        each.mkdir()
        (each / "mms.properties").touch()
    (abandoned / LOCK).touch()
    (foreign / LOCK).touch()
    with run_directory() as first:
        assert sorted(here.iterdir()) == sorted([first, beginning, foreign])
        with folder() as second:
            assert first.exists()
        assert first.exists()
        assert not second.exists()
    assert sorted(here.iterdir()) == sorted([beginning, foreign])


def test_what_goes_wrong_leaves_nothing(here: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_directory():
        raise ZeroDivisionError
    assert list(here.iterdir()) == []


def test_no_folder_to_be_had_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(here / "nowhere"))
    with pytest.raises(ServeError, match="TMPDIR: no folder for temporary files"), run_directory():
        pass
