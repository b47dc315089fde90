"""Results are all of one run, and one run writes them at a time."""

import re
import shutil
from pathlib import Path

import pytest

from local_test import outdir
from local_test.errors import LocalError
from tests.conftest import Capture, Patch


def finish(out: Path, text: str) -> None:
    with outdir.claimed(out) as claimed:
        (claimed.begin() / "summary.json").write_text(text)
        claimed.keep()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_run_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for word in ("", ".old", ".failed"):  # empty folders are used
        (tmp_path / f"out{word}").mkdir()
    finish(out, "one")
    (out / "only-in-one").touch()
    finish(out, "two")
    assert names(out) == {"summary.json"}
    assert (out / "summary.json").read_text() == "two"
    assert list(tmp_path.iterdir()) == [out], "no lock, either"


@pytest.mark.parametrize(
    ("file", "is_kept"),
    [
        ("ml/checkpoints/checkpoint.pt", True),
        ("ml/model/model.pth", True),
        ("model/model.tar.gz", True),
        ("logs/train.log", False),  # not in place of a model
        ("ml/output/failure", False),
    ],
)
def test_a_failed_run_is_kept_for_what_took_time_and_the_results_before_come_back(
    tmp_path: Path, file: str, is_kept: bool
) -> None:
    def fail(file: str) -> Path | None:
        with outdir.claimed(tmp_path / "out") as claimed:
            (path := claimed.begin() / file).parent.mkdir(parents=True)
            path.touch()
            return claimed.give_up()

    finish(tmp_path / "out", "one")
    assert fail("model/before") == tmp_path / "out.failed"
    assert fail(file) == (tmp_path / "out.failed" if is_kept else None)
    assert (tmp_path / "out.failed" / file).exists() == is_kept
    assert (tmp_path / "out.failed" / "model" / "before").exists() == (not is_kept)
    assert (tmp_path / "out" / "summary.json").read_text() == "one"
    finish(tmp_path / "out", "two")
    assert names(tmp_path) == {"out"}


def test_a_run_that_failed_before_its_first_checkpoint_keeps_its_log(tmp_path: Path) -> None:
    for words in ("one", "two"):  # the newest
        with outdir.claimed(tmp_path / "out") as claimed:
            (log := claimed.begin() / "logs" / "train.log").parent.mkdir(parents=True)
            log.write_text(words)
            assert claimed.give_up() == tmp_path / "out.failed"
        assert (tmp_path / "out.failed" / "logs" / "train.log").read_text() == words
    with outdir.claimed(tmp_path / "out") as claimed:
        (claimed.begin() / "logs").mkdir()  # nothing was started
        assert claimed.give_up() is None


@pytest.mark.parametrize("moment", ["at work", "before it began", "at its end"])
def test_a_killed_run_is_tidied_up(tmp_path: Path, moment: str, capsys: Capture) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    killed = outdir.OutDir(out)
    if moment == "before it began":
        out.rename(tmp_path / "out.old")
    else:
        (killed.begin() / "model").mkdir()
        (out / "model" / "model.tar.gz").touch()
        if moment == "at its end":
            (out / outdir.MARK).write_text(outdir.DONE)
    with outdir.claimed(out) as claimed:
        claimed.begin()
        assert (tmp_path / "out.failed" / "model" / "model.tar.gz").exists() == (moment == "at work")
        said = f"a run that was killed has left {tmp_path}/out.failed; this one starts from the first epoch\n"
        assert capsys.readouterr().out == (said if moment == "at work" else "")
        claimed.give_up()
    assert (out / "summary.json").exists() == (moment != "at its end")
    assert not (tmp_path / "out.old").exists()


@pytest.mark.parametrize("word", ["", ".old", ".failed"])
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_ours_stays(tmp_path: Path, word: str, kind: str) -> None:
    taken = tmp_path / f"out{word}"
    if kind == "folder":
        taken.mkdir()
        (taken / "precious").touch()
    elif kind == "file":
        taken.write_text("precious")
    elif word:
        taken.symlink_to(tmp_path / "elsewhere")
    else:
        return  # test_a_link_to_a_folder_of_results_stays_a_link
    with pytest.raises(LocalError, match=r"holds something else.* give another --out") as caught:
        outdir.claimed(tmp_path / "out").__enter__()
    assert caught.value.code == 2
    assert str(taken) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [taken]
    assert kind != "folder" or (taken / "precious").exists()


def test_a_run_killed_while_it_removed_a_folder_is_tidied_up(tmp_path: Path, monkeypatch: Patch) -> None:
    with outdir.claimed(tmp_path / "out") as claimed:
        (claimed.begin() / "ml").mkdir()
        monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            outdir.remove(claimed.out)
    monkeypatch.undo()
    assert (tmp_path / "out" / outdir.MARK).exists()
    finish(tmp_path / "out", "two")


def test_a_link_to_a_folder_of_results_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    for text in ("one", "two"):
        finish(tmp_path / "out", text)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "out" / "summary.json").read_text() == "two"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / ".out.byoc-lock").symlink_to("/dev/full")
    with pytest.raises(LocalError, match=r"\.out\.byoc-lock: No space left"), outdir.claimed(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.old", "names ending in .old are for what other runs left: give another"),
        ("out.failed", "names ending in .failed are for what other runs left: give another"),
        ("/", "is a mount point, which cannot be replaced: give a folder in it"),
    ],
)
def test_what_another_run_left_is_not_given_as_out(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(LocalError, match=re.escape(said)):
        outdir.claimed(tmp_path / name).__enter__()
    assert list(tmp_path.iterdir()) == []
