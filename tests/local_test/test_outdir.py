"""Results are all of one run, and one run writes them at a time."""

import os
import shutil
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


def fail(claimed: outdir.OutDir, file: str) -> Path | None:
    path = claimed.begin() / file
    path.parent.mkdir(parents=True)
    path.touch()
    return claimed.give_up()


@pytest.mark.parametrize(
    ("file", "is_kept"),
    [
        ("ml/checkpoints/checkpoint.pt", True),
        ("ml/model/model.pth", True),
        ("model/model.tar.gz", True),
        ("logs/train.log", False),
        ("ml/output/failure", False),
    ],
)
def test_a_failed_run_is_kept_for_what_took_time(tmp_path: Path, file: str, is_kept: bool) -> None:
    with outdir.claimed(tmp_path / "out") as claimed:
        assert fail(claimed, "model/before") == tmp_path / "out.failed"
    with outdir.claimed(tmp_path / "out") as claimed:
        kept = fail(claimed, file)
    assert kept == (tmp_path / "out.failed" if is_kept else None)
    assert (tmp_path / "out.failed" / file).exists() == is_kept
    assert (tmp_path / "out.failed" / "model" / "before").exists() == (not is_kept)
    assert not (tmp_path / "out.new").exists()


def test_a_failed_run_leaves_the_results_of_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    with outdir.claimed(out) as claimed:
        fail(claimed, "model/model.tar.gz")
    assert (out / "summary.json").read_text() == "one"
    assert (tmp_path / "out.failed" / "model" / "model.tar.gz").exists()
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
    with pytest.raises(LocalError, match="something else"), outdir.claimed(tmp_path):
        pass
    assert (tmp_path / "precious").exists()
    assert not tmp_path.with_name(f"{tmp_path.name}.lock").exists()


@pytest.mark.parametrize("word", ["new", "old", "failed"])
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_sibling_that_is_not_ours_stays(tmp_path: Path, word: str, kind: str) -> None:
    sibling = tmp_path / f"out.{word}"
    if kind == "folder":
        sibling.mkdir()
        (sibling / "precious").touch()
    elif kind == "file":
        sibling.write_text("precious")
    else:
        sibling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalError, match="give another folder with --out") as caught, outdir.claimed(tmp_path / "out"):
        pass
    assert caught.value.code == 2
    assert str(sibling) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [sibling]
    assert kind != "folder" or (sibling / "precious").exists()


def test_empty_siblings_are_used(tmp_path: Path) -> None:
    for word in ("new", "old", "failed"):
        (tmp_path / f"out.{word}").mkdir()
    finish(tmp_path / "out", "one")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.lock"}


@pytest.mark.parametrize("content", [b"poetry==1.8\n", b"\xff\x00", b"1" * 100, b"\n"])
def test_a_lock_file_that_is_not_ours_stays(tmp_path: Path, content: bytes) -> None:
    lock = tmp_path / "out.lock"
    lock.write_bytes(content)
    with (
        pytest.raises(LocalError, match=r"out\.lock .*give another folder with --out"),
        outdir.claimed(tmp_path / "out"),
    ):
        pass
    assert lock.read_bytes() == content


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "out.lock").write_text("123456789\n")
    with outdir.claimed(tmp_path / "out"):
        assert (tmp_path / "out.lock").read_text() == f"{os.getpid()}\n"


def test_a_run_killed_while_it_removed_a_folder_is_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with outdir.claimed(tmp_path / "out") as claimed:
        folder = claimed.begin() / "ml"
        folder.mkdir()
        monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            outdir.remove(claimed.new)
    monkeypatch.undo()
    assert (tmp_path / "out.new" / outdir.MARK).exists()
    finish(tmp_path / "out", "two")
    assert not (tmp_path / "out.new").exists()


def test_a_link_to_a_folder_of_results_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    for text in ("one", "two"):
        finish(tmp_path / "out", text)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "out" / "summary.json").read_text() == "two"


def test_the_root_is_no_folder_of_results() -> None:
    with pytest.raises(LocalError, match="another folder"), outdir.claimed(Path("/")):
        pass


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
