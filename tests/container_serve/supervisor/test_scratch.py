"""Temporary folders, and those that were left by servers which were killed."""

import tempfile
from pathlib import Path

import pytest

from container_serve.errors import ServeError
from container_serve.supervisor.scratch import LOCK, PREFIX, run_directory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_without_a_server_are_removed_and_others_stay(here: Path) -> None:
    abandoned, beginning, foreign = here / f"{PREFIX}left", here / f"{PREFIX}new", here / "byoc-other"
    for folder in (abandoned, beginning, foreign):
        folder.mkdir()
        (folder / "mms.properties").touch()
    (abandoned / LOCK).touch()
    (foreign / LOCK).touch()
    with run_directory() as first:
        assert sorted(here.iterdir()) == sorted([first, beginning, foreign])
        with run_directory() as second:
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
