"""scripts/report.py --all: the runs of this machine in one table, as text and as a browser shows it."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import report
from scripts.jobs import runs
from scripts.tuning import results
from tests.browser import Browser
from tests.calls import Call
from tests.conftest import Patch
from tests.container_train.profiler import made_up
from tests.scripts.tuning.searches import FAILED, search, usual

SHOTS = Path(__file__).resolve().parents[2] / "out"  # kept, to be looked at
FINETUNE = {"recipe": "finetune", "epochs": 25, "lr": 0.0001, "batch-size": 64}


def trained(out: Path, number: int, accuracy: float | None, **more: object) -> Path:
    start = made_up.START + 7200 * number
    made_up.write(out, seconds=20 + number, steps=20, epochs=2, start=start, job=f"dogs-{number}", **more)  # type: ignore[arg-type]
    if accuracy is not None:
        (out / "metrics.json").write_text(json.dumps({"test_accuracy": accuracy, "job": {"data": f"{number // 2}abc"}}))
        (out / "report.html").write_text("<title>the report</title>")
    return out


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Folders as run.sh, train.py --local and tune.py --local leave them below local_test, and a downloaded job."""
    home, jobs = tmp_path / "local_test", tmp_path / "downloads"
    trained(home / "out" / "ml" / "output" / "data", 3, 0.9, hyperparameters=FINETUNE)
    shutil.copy(home / "out" / "ml" / "output" / "data" / "rules.json", home / "out")
    trained(home / "out.failed" / "ml" / "output" / "data", 2, None, status="failed", reason="the loss became nan")
    packed = trained(tmp_path / "packed", 1, 0.8)
    for archive in (home / "out.jobs" / "dogs-1" / "output" / "output.tar.gz", jobs / "copy" / "dogs-1-output.tar.gz"):
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(packed, "data")
    shutil.rmtree(packed)
    results.write(usual(), home / "tuning" / "dogs")
    results.write(search(FAILED), home / "tuning" / "broken")
    trained(home / "tuning" / "dogs" / "best" / "ml" / "output" / "data", 0, 0.7, rules=made_up.SICK)
    (home / "tuning" / "dogs" / "trials" / "trial-0000").mkdir(parents=True)
    (home / "tuning" / "dogs" / "trials" / "trial-0000" / "metrics.json").write_text("{}")
    (home / "sample" / "input").mkdir(parents=True)
    (jobs / "cut").mkdir()
    (jobs / "cut" / "output.tar.gz").write_bytes(b"no archive")
    monkeypatch.setattr(runs, "HOME", home)
    monkeypatch.chdir(tmp_path)
    return home


def test_all_runs_are_found_wherever_the_scripts_leave_them(home: Path, call: Call) -> None:
    said = call(report, "--all").ends(0)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines()[2:]}
    assert list(rows)[2:] == [
        "local_test/out", "local_test/out.failed", "local_test/out.jobs/dogs-1/output/output.tar.gz",
        "local_test/tuning/dogs/best",
    ]  # fmt: skip
    assert set(list(rows)[:2]) == {"local_test/tuning/dogs", "local_test/tuning/broken"}
    out = "Completed 2026-11-22 23:20 23.0 s 2 50.0 % (46 to 54 %) 90.0 % (87 to 92 %) 0 recipe=finetune lr=0.0001"
    assert rows["local_test/out"] == out
    failed = "Failed 2026-11-22 21:20 22.0 s 2 50.0 % (46 to 54 %) epochs=2"
    assert rows["local_test/out.failed"] == failed, "nobody knows that it had no problems"
    assert rows["local_test/tuning/dogs"].endswith("5 min 00 s 20 trials 58.6 % epochs=2 lr=0.001 batch-size=64")
    assert rows["local_test/tuning/broken"].startswith("Failed")
    assert rows["local_test/tuning/dogs/best"].endswith("70.0 % (66 to 74 %) 4 epochs=2")
    assert said.err.splitlines() == [f"6 runs: open {home}/runs.html"]


def test_those_of_another_folder_too_and_what_is_damaged_is_left_out(home: Path, call: Call) -> None:
    trained(home / "out.failed" / "ml" / "output" / "data", 2, None)
    said = call(report, "--all", "downloads", "--out", "table.html").ends(0)
    assert "downloads/copy/dogs-1-output.tar.gz Completed" in " ".join(said.out.split())
    assert "local_test/out.failed Broke off 2026" in " ".join(said.out.split()), "its training had completed"
    left_out, end = said.err.splitlines()
    assert left_out.startswith(f"{home.parent}/downloads/cut/output.tar.gz is left out: ")
    assert "not a .tar.gz archive" in left_out
    assert end == "7 runs: open table.html"
    each_once = call(report, "--all", home / "tuning" / "..", "--out", "table.html").ends(0)
    assert each_once.err == "6 runs: open table.html\n"


def test_where_there_is_none_it_says_so_and_names_damaged_files(tmp_path: Path, monkeypatch: Patch, call: Call) -> None:
    out = tmp_path / "home" / "out"
    monkeypatch.setattr(runs, "HOME", out.parent)
    none = f"there is no run that can be read below {out.parent}: train first"
    call(report, "--all", "--out", tmp_path / "runs.html").ends(1, none)
    assert not list(tmp_path.iterdir())
    out.mkdir(parents=True)
    (out / "metrics.json").write_text('{"test_accuracy": ')
    ended = call(report, "--all", "--out", tmp_path / "runs.html").ends(1, "there is no run that can be read")
    assert ended.err.startswith(f"{out} is left out: {out / 'metrics.json'} cannot be read (")


def test_what_a_row_lacks_is_said(home: Path, call: Call) -> None:
    rules = home / "tuning" / "dogs" / "best" / "ml" / "output" / "data" / "rules.json"
    rules.write_text(rules.read_text()[:-20])
    said, end = call(report, "--all").ends(0).err.splitlines()
    assert said.startswith(f"warning: {rules} cannot be read (")
    assert said.endswith("the row lacks what it held")
    assert end == f"6 runs: open {home}/runs.html"


def test_the_page_sorts_filters_opens_and_compares(home: Path, tmp_path: Path, call: Call) -> None:
    assert call(report, "--all").code == 0
    page = home / "runs.html"
    with Browser(tmp_path / "profile") as browser:

        def rows() -> list[str]:
            shown = "[...document.querySelectorAll('#runs tbody tr')].filter((row) => row.checkVisibility())"
            found: list[str] = browser.ask(f"{shown}.map((row) => row.querySelector('.name b').textContent)")
            return found

        def tick(*names: str) -> None:
            browser.ask(
                f"document.querySelectorAll('#runs tbody tr').forEach((row) => {list(names)}.includes("
                "row.querySelector('.name b').textContent) && row.querySelector('input').click())"
            )

        browser.open(page, 1440)
        assert (browser.problems, browser.requests) == ([], [])
        browser.ask("document.querySelector('th[data-key=test] button').click()")
        assert rows()[:2] == ["local_test/out", "local_test/out.jobs/dogs-1/output/output.tar.gz"]
        assert browser.ask("document.querySelector('th[data-key=test]').ariaSort") == "descending"
        browser.ask("document.querySelector('th[data-key=test] button').click()")
        assert rows()[0] == "local_test/tuning/dogs/best"
        links = browser.ask("[...document.querySelectorAll('td.open a')].map((a) => a.getAttribute('href'))")
        assert len(links) == 5
        assert all((home / link).is_file() for link in links)
        typed = "document.getElementById('filter').value = {!r}; filter()"
        browser.ask(typed.format("completed finetune"))
        assert rows() == ["local_test/out"]
        assert browser.ask("document.getElementById('shown').textContent") == "1 of 6 shown"
        browser.ask(typed.format(""))
        tick("local_test/out")
        assert not browser.ask("document.getElementById('compare').checkVisibility()")
        tick("local_test/tuning/dogs/best")
        said = browser.ask("document.getElementById('compare').innerText")
        command = "scripts/report.py local_test/out local_test/tuning/dogs/best --out compare.html"
        for words in ("90.0 % (87 to 92 %)\t70.0 % (66 to 74 %)", "--lr\t0.0001\t0.001", "have other data", command):
            assert words in said, words
        assert "--batch-size" not in said, "it is the same"
        browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        browser.ask("document.querySelector('#compare .copy').click()")
        browser.wait("document.querySelector('#compare .copy').textContent === 'Copied'")
        assert browser.ask("navigator.clipboard.readText()") == command
        browser.screenshot(SHOTS / "runs-1440.png")
        for dark in (False, True):
            browser.open(page, 390, dark=dark)
            tick("local_test/out", "local_test/out.failed")
            assert browser.ask("document.documentElement.scrollWidth") == 390, "the page scrolls sideways"
            shot = browser.screenshot(SHOTS / f"runs-{'dark-' * dark}390.png")
        assert np.median(np.asarray(Image.open(shot).convert("L"))) < 60
