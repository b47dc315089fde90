"""tuning-report.html as a browser shows it, and the files beside it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from scripts.aws.errors import CloudError
from scripts.tuning import drawing, report, results
from scripts.tuning.space import Range
from scripts.tuning.study import importance
from scripts.tuning.trials import Search, render
from tests.browser import Browser
from tests.conftest import FULL, Patch
from tests.scripts.tuning.searches import FAILED, search, trial, usual

SHOTS = Path(__file__).resolve().parents[2] / "out"  # kept, to be looked at
VALUES = {"chart-history", "chart-parallel", "chart-against-0"}
CURVES = {"chart-curves-valid_accuracy", "chart-curves-valid_loss"}

KINDS: dict[str, tuple[Search, set[str]]] = {
    "usual": (usual(), VALUES | CURVES | {"chart-importance"}),
    "many": (usual(300 if FULL else 100), VALUES | CURVES | {"chart-importance"}),
    "one": (search(trial(0, 0.001, 64, 0.5)), VALUES | CURVES),
    "alike": (search(*(trial(n, 0.001 * (n + 1), 64, 0.5) for n in range(5))), VALUES | CURVES),
    "without-curves": (search(*(trial(n, 0.01, 64, 0.1 * n, epochs=()) for n in range(3))), VALUES),
    "failed": (search(FAILED), set()),
    "empty": (search(), set()),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_is_drawn_at_both_widths(browser: Browser, tmp_path: Path, kind: str) -> None:
    found, charts = KINDS[kind]
    page = tmp_path / "tuning-report.html"
    report.write(found, page)
    for width in (1440, 390) if FULL or kind == "usual" else (390,):
        browser.open(page, width)
        assert browser.problems == []
        assert browser.requests == []
        drawn = browser.charts()
        assert drawn.keys() == charts
        assert all(share > 0.001 for share in drawn.values()), drawn
        assert browser.ask("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
        browser.screenshot(SHOTS / f"tuning-report-{kind}-{width}.png")
    if kind == "usual":
        browser.open(page, 1440, dark=True)
        shot = browser.screenshot(SHOTS / "tuning-report-dark-1440.png")
        assert np.median(np.asarray(Image.open(shot).convert("L"))) < 60
    assert page.stat().st_size < 5_000_000
    assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=[\"'](?!data:)", page.read_text())


def test_what_it_says(tmp_path: Path) -> None:
    def said(found: Search) -> str:
        report.write(found, tmp_path / "page.html")
        return " ".join(re.sub(r"<[^>]*>", " ", (tmp_path / "page.html").read_text()).split())

    text = said(search(trial(0, 0.001, 64, 0.5), trial(1, 0.002, 32, 0.6)))
    assert "Best: 60.00 % in trial 1" in text
    assert "What the training program takes by itself gave 50.00 % (trial 0)." in text
    text = said(search(trial(0, 0.001, 64, 0.6), trial(1, 0.002, 32, 0.5), replace(FAILED, number=2)))
    assert "no other setting was better" in text
    assert "no such channel" in text
    hostile = trial(0, 0.001, 64, None, status="failed", reason="<script>alert(1)</script>")
    report.write(search(hostile), tmp_path / "page.html")
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_how_little_few_images_can_tell(tmp_path: Path) -> None:
    found = replace(search(trial(0, 0.001, 64, 0.28), trial(1, 0.002, 32, 0.32), trial(2, 0.1, 32, 0.1)), images=60)
    report.write(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "The 95 % interval on 60 validation images is 22 to 45 %; 1 other trial within it may be as good." in page
    assert "<code>--epochs 2 --lr 0.002 --batch-size 32</code>" in page
    report.write(replace(found, images=0), tmp_path / "page.html")
    assert "validation image" not in (tmp_path / "page.html").read_text()


def test_the_command_is_copied_and_no_table_is_cut_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    command = "scripts/train.py --local --data 'my dogs' --from-tuning dogs"
    report.write(replace(usual(), command=command), tmp_path / "page.html")
    browser.open(tmp_path / "page.html", 390)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.ask("document.querySelector('.copy').click()")
    browser.wait("document.querySelector('.copy').textContent === 'Copied'")
    assert browser.ask("navigator.clipboard.readText()") == command
    table = "document.querySelector('.trials')"
    assert browser.ask(f"{table}.scrollWidth <= {table}.parentElement.clientWidth")
    cells = browser.ask(f"[...{table}.rows[1].cells].map((cell) => cell.textContent)")
    assert cells == ["0", "completed", "0.001", "64", "58.64 %", "2", "12", "best"]


def test_axes_have_whole_trials_and_say_where_they_are_logarithmic() -> None:
    history, lr = drawing.history(usual()), drawing.against(usual(), "lr", cast(Range, usual().space.searched["lr"]))
    assert history.plot.xaxis[0].ticker.min_interval == 1
    assert lr.plot.xaxis[0].axis_label == "lr, logarithmic"
    assert lr.plot.xaxis[0].ticker.ticks == pytest.approx([0.001, 0.01, 0.1])
    assert drawing.parallel(usual()).plot.xaxis[0].major_label_overrides[0] == "lr, log"


def test_of_equal_trials_the_line_of_the_first_is_the_best() -> None:
    found = KINDS["alike"][0]
    (lines, *_), best = drawing.parallel(found).plot.renderers, found.best
    columns = lines.data_source.data
    assert best is not None
    assert columns["colour"][-1] == drawing.BEST
    assert columns["trial"][-1] == str(best.number) == "0"


def test_importance_finds_what_mattered() -> None:
    shares = importance(usual())
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_the_files_and_reading_them_again(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    found = usual()
    counted = tmp_path / "dogs" / "trials" / "trial-0000" / "metrics.json"
    counted.parent.mkdir(parents=True)
    counted.write_text('{"images": {"valid": 60}}')
    results.write(found, tmp_path / "dogs")
    assert "on 60 validation images" in (tmp_path / "dogs" / "tuning-report.html").read_text()
    best = found.best
    assert best is not None
    expected = {"epochs": "2", "lr": str(best.parameters["lr"]), "batch-size": str(best.parameters["batch-size"])}
    for where in ("dogs", str(tmp_path / "dogs"), str(tmp_path / "dogs" / "best.json")):
        assert results.read(where) == expected
    assert json.loads((tmp_path / "dogs" / "trials.json").read_text())["trials"][3]["reason"].startswith("the loss")
    assert results.read("cats") is None
    results.write(found, tmp_path / "cats")
    results.write(search(FAILED), tmp_path / "cats")  # its study was removed, and begun anew
    with pytest.raises(CloudError, match=r"has no best\.json"):
        results.read("cats")
    (tmp_path / "cats" / "best.json").write_text('{"hyperparameters": 1}')
    with pytest.raises(CloudError, match="was not written by"):
        results.read("cats")


def test_the_best_is_the_first_of_equals_and_completed() -> None:
    found = search(trial(0, 0.1, 32, 0.5), trial(1, 0.2, 32, 0.5), trial(2, 0.3, 32, 0.9, status="stopped"))
    assert found.best is not None
    assert found.best.number == 0
    lines = render(found).splitlines()
    assert lines[0].split() == ["trial", "status", "lr", "batch-size", "valid_accuracy", "epochs", "seconds"]
    assert lines[2].endswith("best")
