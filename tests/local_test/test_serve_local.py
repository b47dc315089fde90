"""serve_local.sh: what it unpacks, and what of that stays when it is killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from container_serve.scratch import run_directory
from local_test import options, pack, serve_local
from local_test.errors import LocalError
from local_test.server import free_port
from tests.conftest import Patch
from tests.contract.models import write_model
from tests.local_test.runs import ROOT, mentioning, until


def start(archive: Path, port: int, folder: Path) -> "subprocess.Popen[bytes]":
    """Serve as a process; its log is folder/PORT, its temporary files are in folder/tmp."""
    command = [sys.executable, "-P", "-m", "local_test", "serve_local.sh", "--engine", "process"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    with (folder / str(port)).open("wb") as log:
        return subprocess.Popen([*command, "--model", archive, "--port", str(port)], env=env, stdout=log, stderr=log)


def test_what_a_killed_call_has_left_is_removed_by_the_next_one(tmp_path: Path, monkeypatch: Patch) -> None:
    archive = tmp_path / "model.tar.gz"
    pack.pack(write_model(tmp_path / "model"), archive)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def unpacked() -> set[Path]:
        return {path.parent for path in (tmp_path / "tmp").glob("*/model/model.json")}

    killed = start(archive, port := free_port(), tmp_path)
    try:
        until(unpacked)
    finally:
        killed.kill()
        killed.wait()
    until(lambda: not mentioning(f"--port {port}"))
    (left,) = unpacked()
    following = start(archive, free_port(), tmp_path)
    try:
        until(lambda: left not in unpacked() and unpacked())
        (used,) = unpacked()
        with run_directory():  # as another call begins
            assert used in unpacked()
    finally:
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_model_of_the_run_before_is_named_while_a_training_runs(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(options, "OUT", tmp_path / "out")
    wanted, before = (tmp_path / name / "model" / "model.tar.gz" for name in ("out", "out.old"))
    before.parent.mkdir(parents=True)
    before.touch()
    with pytest.raises(LocalError, match=f"was killed; the run before has --model {before}"):
        serve_local.serve_model("process", wanted, free_port(), page=False, show=False)
    before.unlink()
    with pytest.raises(LocalError, match="no such file: give a model"):
        serve_local.serve_model("process", wanted, free_port(), page=False, show=False)
