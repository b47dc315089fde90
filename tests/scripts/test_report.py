"""scripts/report.py over folders and archives on this machine; S3 and jobs' names are in tests/cloud."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import report
from scripts.jobs import outputs
from tests.calls import Call
from tests.conftest import Patch
from tests.container_train.profiler import made_up


def packed(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, prefix or ".")
    return archive


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job") / "output" / "data"
    return made_up.write(out, seconds=30, steps=200, epochs=2, rules=made_up.SICK)


@pytest.mark.parametrize(
    "where", ["data", "data/profiler", "output", "tree", "results", "copies", "archive", "kept archive"]
)
def test_a_job_wherever_it_lies(job: Path, tmp_path: Path, where: str, call: Call) -> None:
    places: dict[str, Callable[[], Path]] = {
        "data": lambda: job,
        "data/profiler": lambda: job / "profiler",
        "output": lambda: job.parent,
        "tree": lambda: job.parent.parent,
        "results": lambda: linked(tmp_path / "results" / "ml", job.parent.parent).parent,
        "copies": lambda: with_copies(tmp_path / "out", job),
        "archive": lambda: packed(job, tmp_path / "output.tar.gz"),
        "kept archive": lambda: packed(job, tmp_path / "output.tar.gz", "data").parent,
    }
    page = tmp_path / "new" / "page.html"
    page.parent.mkdir()
    assert call(report, places[where](), "--out", page).ends(0).out == f"{page}\n"
    assert "4 warnings." in page.read_text()
    assert "Stop earlier (patience)" in page.read_text()


def test_what_is_cut_or_missing_is_said(tmp_path: Path, call: Call) -> None:
    out = made_up.write(tmp_path / "job", seconds=20, steps=100, epochs=2)
    assert "warning" not in call(report, out, "--out", tmp_path / "page.html").ends(0).err
    (out / "profiler" / "timeline.jsonl").unlink()
    job_json = out / "profiler" / "job.json"
    job_json.write_text(job_json.read_text()[:-20])
    missing = f"{out / 'profiler' / 'timeline.jsonl'} is missing"
    call(report, out, "--out", tmp_path / "page.html").says("warning: ", missing, f"{job_json} cannot be read")


def with_copies(out: Path, job: Path) -> Path:
    """Lay out what run.sh leaves: some of the job's files again, above all of them."""
    linked(out / "ml", job.parent.parent)
    shutil.copy(job / "rules.json", out)
    return out


def linked(link: Path, target: Path) -> Path:
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    return link


def test_a_page_is_beside_what_it_reports_on(job: Path, tmp_path: Path, monkeypatch: Patch, call: Call) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first, second = (shutil.copytree(job, tmp_path / name) for name in ("first", "runs/second"))
    archive = packed(job, tmp_path / "output.tar.gz")
    for jobs, page in (
        ([first], first / "profiler-report.html"),
        ([archive], tmp_path / "profiler-report.html"),
        ([first, second], tmp_path / "runs" / "compare.html"),
        (["--all", tmp_path / "runs"], tmp_path / "runs" / "runs.html"),
    ):
        page.unlink(missing_ok=True)
        said = call(report, *jobs).ends(0)
        assert str(page) in (said.err if "--all" in jobs else said.out).splitlines()[-1]
        assert page.stat().st_size > 1000
    assert list((tmp_path / "here").iterdir()) == []


def test_two_jobs_are_called_what_sets_them_apart(job: Path, tmp_path: Path, call: Call) -> None:
    second = made_up.write(tmp_path / "second", seconds=20, steps=100, epochs=2)
    assert call(report, job, second, "--out", tmp_path / "c.html").code == 0
    page = (tmp_path / "c.html").read_text()
    assert "<b>B</b> second" in page or "/second" in page
    assert report._names(["runs/one/out", "runs/two/out/"]) == ("one/out", "two/out")


def test_a_job_in_an_archive_has_ended(tmp_path: Path, call: Call) -> None:
    """A killed job's files say that it runs; in a folder that changed just now it may, in an archive it does not."""
    out = made_up.write(tmp_path / "job", seconds=20, steps=100, epochs=2, status="running", ended=None, final=False)
    pages = {}
    for name, source in (("folder", out), ("archive", packed(out, tmp_path / "output.tar.gz"))):
        assert call(report, source, "--out", tmp_path / f"{name}.html").code == 0
        pages[name] = (tmp_path / f"{name}.html").read_text()
    assert "<title>Running" in pages["folder"]
    assert "<title>Broke off" in pages["archive"]


def test_an_archive_that_would_fill_the_disk(tmp_path: Path, monkeypatch: Patch, call: Call) -> None:
    monkeypatch.setattr(outputs, "LARGEST", 1000)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "rules.json").write_bytes(bytes(2000))
    archive = packed(tmp_path / "big", tmp_path / "output.tar.gz")
    call(report, archive, "--out", tmp_path / "page.html").ends(1, "unpacks to more than")


def make_empty(path: Path) -> list[object]:
    path.mkdir()
    return [path]


def make_cut(path: Path) -> list[object]:
    made_up.write(path / "job", seconds=20, steps=100, epochs=2)
    archive = packed(path / "job", path / "output.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    return [archive]


def make_other(path: Path) -> list[object]:
    path.mkdir()
    (path / "note.txt").write_text("no archive")
    return [path / "note.txt"]


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_nonsense(path: Path) -> list[object]:
    path.mkdir()
    (path / "rules.json").write_text("{}")
    return [path]


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (make_empty, 1, "holds nothing that a job"),
        (make_cut, 1, "is damaged, or not a .tar.gz archive"),
        (make_other, 1, "is damaged, or not a .tar.gz archive"),
        (make_nonsense, 1, "its files say nothing"),
        (lambda path: [path / "missing"], 2, "is no folder, no archive, no s3:// address"),
        (lambda path: ["s3://bucket"], 2, "is a whole bucket"),
        (lambda path: ["s3://B/x"], 2, "expected s3://BUCKET/PREFIX"),
        (lambda path: ["a", "b", "c"], 2, "3 jobs given: expected one, two to compare, --all, or --captured"),
        (lambda path: [], 2, "0 jobs given: expected one, two to compare, --all, or --captured"),
        (lambda path: ["a", "--all", "b"], 2, "--all and a cannot be combined"),
        (lambda path: ["--all", path], 2, "x: no such folder"),
        (lambda path: [path.parent, "--out", path.parent], 2, "is a folder, or no ordinary file"),
        (lambda path: [path.parent, "--out", path / "page.html"], 2, "page.html: there is no folder "),
        (lambda path: [path.parent, "--out", make_pipe(path)], 2, "no ordinary file: give another"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, make: Callable[[Path], list[object]], code: int, said: str, call: Call
) -> None:
    target = tmp_path / "page.html"
    words = make(tmp_path / "x")
    ended = call(report, *words, *([] if "--out" in words else ["--out", target])).ends(code, "report.py: ", said)
    assert all(line.startswith(("reading ", "warning: ")) for line in ended.err.splitlines()[:-1])
    assert not target.exists()
