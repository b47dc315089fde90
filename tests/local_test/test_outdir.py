"""Results are all of one run, and one run writes them at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from local_test import outdir
from local_test.errors import LocalError


def finish(out: Path, text: str) -> None:
    with outdir.claimed(out) as claimed:
        (claimed.begin() / "summary.json").write_text(text)
        claimed.keep()


def test_a_run_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    (out / "only-in-one").touch()
    finish(out, "two")
    assert {path.name for path in out.iterdir()} == {outdir.MARK, "summary.json"}
    assert (out / "summary.json").read_text() == "two"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.lock"}


def test_a_failed_run_leaves_the_results_of_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    with outdir.claimed(out) as claimed:
        (claimed.begin() / "half").touch()
        claimed.give_up()
    assert (out / "summary.json").read_text() == "one"
    assert (tmp_path / "out.failed" / "half").exists()
    finish(out, "two")
    assert not (tmp_path / "out.failed").exists()


def test_a_run_killed_while_it_put_its_results_in_place_is_repaired(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    out.rename(tmp_path / "out.old")
    with outdir.claimed(out) as claimed:
        claimed.begin()
        assert (out / "summary.json").read_text() == "one"


def test_folders_that_are_not_ours_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with outdir.claimed(tmp_path) as claimed, pytest.raises(LocalError, match="something else"):
        claimed.begin()
    assert (tmp_path / "precious").exists()
    tmp_path.with_name(f"{tmp_path.name}.lock").unlink()


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from local_test import outdir\n"
        "with outdir.claimed(Path(sys.argv[1])): print(os.getpid(), flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "out"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert first.stdout is not None
        pid = first.stdout.readline().strip()
        with pytest.raises(LocalError, match=f"pid {pid}"), outdir.claimed(tmp_path / "out"):
            pass
    finally:
        first.kill()
        first.communicate()
    # However it ended, its lock ended with it.
    with outdir.claimed(tmp_path / "out"):
        assert (tmp_path / "out.lock").exists()
