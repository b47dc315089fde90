"""Temporary folders."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from container_serve.errors import ServeError
from container_serve.supervisor.scratch import private_directory


def test_a_private_folder_is_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with suppress(ZeroDivisionError), private_directory("a-") as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_no_folder_to_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ServeError, match="TMPDIR: no folder for temporary files"), private_directory("a-"):
        pass
