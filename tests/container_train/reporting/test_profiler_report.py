"""The report as a browser shows it: of jobs of every kind, made up in the files' own formats."""

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.models import Span
from PIL import Image

from container_train.monitoring.findings import Evidence, Finding
from container_train.reporting import compare, drawing, profiler_report, record, summary
from container_train.reporting.drawing import TRAIN, VALID
from container_train.reporting.learning_charts import learning
from container_train.reporting.measures import MEASURES, best_epoch
from tests.browser import Browser
from tests.conftest import FULL
from tests.container_train.profiler import made_up

ROOT = Path(__file__).resolve().parents[3]
SHOTS = ROOT / "tests" / "out"  # kept, to be looked at
OVER_TIME = {"chart-phases", "chart-cpu", "chart-cores", "chart-memory", "chart-disk", "chart-network"}
OF_GPU = {"chart-gpu", "chart-power", "chart-temperature"}
OF_TRAINING = {"chart-loss", "chart-accuracy", "chart-gradients"}
OF_STEPS = {"chart-histogram", "chart-step_times"}
ALL = OVER_TIME | OF_TRAINING | OF_STEPS


def running(out: Path) -> None:
    """In the first epoch: what is going on has begun, and not ended."""
    made_up.write(out, status="running", ended=None, final=False, rules=[])
    timeline = out / "profiler" / "timeline.jsonl"
    lines = timeline.read_text().splitlines(keepends=True)
    timeline.write_text("".join(lines[: next(n for n, line in enumerate(lines) if '"steps"' in line) + 2]))
    tensors = out / "profiler" / "tensors.json"
    tensors.unlink()


def killed(out: Path) -> None:
    """Half a line at the end of every file."""
    made_up.write(out, status="running", ended=None, rules=made_up.SICK)
    for name in ("profiler/timeline.jsonl", "profiler/tensors.json"):
        made_up.cut(out / name)
    made_up.cut(max(out.rglob("*.algo-1.json")))


def everything_off(out: Path) -> None:
    off = {"state": "off", "reason": "as asked"}
    made_up.write(out, interval=0, layers=[], rules=[], epochs=1, steps=30, debug=off)


def just_started(out: Path) -> None:
    made_up.write(out, seconds=1, interval=0, steps=0, epochs=0, layers=[], status="running", ended=None, final=False)
    (out / "profiler" / "timeline.jsonl").unlink()
    (out / "rules.json").unlink()


KINDS = {
    "hour": (made_up.hour, ALL | OF_GPU),
    "healthy": (made_up.write, ALL),
    "running": (running, OVER_TIME | OF_STEPS),
    "killed": (killed, ALL - {"chart-gradients"}),
    "off": (everything_off, {"chart-phases", "chart-loss", "chart-accuracy"} | OF_STEPS),
    "started": (just_started, set()),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("reports")
    result = {}
    for name, (make, _) in KINDS.items():
        make(base / name)
        result[name] = profiler_report.write(base / name)
    return result


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def looks_right(browser: Browser, page: Path, width: int, charts: set[str], *, dark: bool = False) -> None:
    browser.open(page, width, dark=dark)
    assert browser.problems == []
    assert browser.requests == []
    drawn = browser.charts()
    assert drawn.keys() == charts
    assert all(share > 0.001 for share in drawn.values()), drawn
    assert browser.ask("document.documentElement.scrollWidth") == width, "the page scrolls sideways"


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_is_drawn_at_both_widths(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    # What differs between them is which charts there are; a narrow page is the one that overflows.
    for width in (1440, 390) if FULL or kind == "hour" else (390,):
        looks_right(browser, pages[kind], width, KINDS[kind][1])
        browser.screenshot(SHOTS / f"profiler-report-{kind}-{width}.png")


def test_a_mouse_zooms_and_a_finger_scrolls(browser: Browser, pages: dict[str, Path]) -> None:
    tools = "Bokeh.documents[0].roots().flatMap(r => r.toolbar.tools).filter(t => t.type === 'BoxZoomTool' && t.active)"
    browser.open(pages["healthy"], 1440)
    browser.wait(f"{tools}.length === {len(ALL)}")
    browser.open(pages["healthy"], 390)
    assert browser.ask(f"{tools}.length") == 0
    touch = """(() => { const found = root => [...root.querySelectorAll('*')].flatMap(e =>
        (e.classList.contains('bk-events') ? [getComputedStyle(e).touchAction] : []).concat(
            e.shadowRoot ? found(e.shadowRoot) : []));
        return found(document.querySelector('#chart-cpu')).join() })()"""
    assert browser.ask(touch) == "auto"


def test_dark_is_dark_and_print_is_light(browser: Browser, pages: dict[str, Path]) -> None:
    looks_right(browser, pages["healthy"], 1440, ALL, dark=True)
    shot = browser.screenshot(SHOTS / "profiler-report-dark-1440.png")
    assert np.median(np.asarray(Image.open(shot).convert("L"))) < 60
    assert browser.pdf(SHOTS / "profiler-report-print.pdf").stat().st_size > 20_000
    background = "getComputedStyle(document.body).backgroundColor"
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.ask(background) == "rgb(255, 255, 255)"


def test_a_page_stays_small_and_asks_for_nothing(pages: dict[str, Path]) -> None:
    assert pages["hour"].stat().st_size < 5_000_000
    assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=[\"'](?!data:)", pages["hour"].read_text())


def words(page: Path) -> str:
    """The text that a reader sees: the page without scripts and style."""
    text = re.sub(r"<(script|style|title)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", text).split()))


def test_the_first_thing_it_says_is_what_to_do(pages: dict[str, Path]) -> None:
    text = words(pages["hour"])
    head = text[: text.index("Where the time went")]
    assert "4 warnings. Do first: Overfit: Validation loss is 34 % above training loss" in head
    assert head.index("Stop earlier (patience)") < head.index("Raise workers") < head.index("First do what data loader")
    assert "And 1 more: Batch size" in head
    for said in ("step 1200 , mode EVAL", "value 0.34 , threshold 0.1", "ratio_threshold=0.1", "fired 1 890 times"):
        assert said in text, said


def test_what_is_worth_knowing_is_no_fault(tmp_path: Path) -> None:
    known = replace(made_up.SICK[0], severity="information")
    page = profiler_report.write(made_up.write(tmp_path / "known", seconds=20, rules=[known, *made_up.HEALTHY[2:]]))
    head = words(page)[: words(page).index("Where the time went")]
    assert "No rule has found a problem 1 of 4 rules had enough to judge and found nothing." in head
    assert "Worth knowing, and often normal: Overfit ." in head
    assert "1 information, 1 too early, 1 ok, 1 not applicable" in words(page)
    assert ("problems and warnings", "0") not in summary.cards(record.read(tmp_path / "known"))
    assert MEASURES["problems and warnings"].of(record.read(tmp_path / "known")) == 0
    rules = [known, replace(made_up.SICK[1], severity="problem"), made_up.SICK[2]]
    head = words(profiler_report.write(made_up.write(tmp_path / "bad", seconds=20, rules=rules)))
    assert "1 problem, 1 warning. Do first: Dataloader: " in head
    assert "Worth knowing, and often normal: Overfit ." in head


def test_rules_that_found_nothing_are_folded_and_the_job_is_named(pages: dict[str, Path]) -> None:
    page = pages["healthy"].read_text()
    folded = page[page.index("<details>") : page.index("</details>")]
    assert "3 rules that found nothing, 2 that could not judge" in folded
    assert "Validation loss stayed near the training loss." in folded
    assert "The CPU was over 90 % busy" in folded
    assert "<title>Completed: dogs-20261122-172000-a1b2, profiler report</title>" in page
    assert "resnet50, 120 classes, 6 000 images, started 2026-11-22 17:20:00 UTC" in words(pages["healthy"])


def test_a_chart_of_nothing_is_left_out(tmp_path: Path) -> None:
    out = made_up.write(tmp_path, seconds=20)
    for file in (out / "profiler" / "system").rglob("*.json"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        zero = [{**line, "Value": 0.0} if line["Type"] == "network" else line for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in zero))
    page = profiler_report.write(out).read_text()
    assert 'id="chart-disk"' in page
    assert 'id="chart-network"' not in page


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("healthy", ("Completed", "No rule has found anything wrong", "10 of 10 epochs done", "60.0 %")),
        ("running", ("Running", "Should the job be over, it was killed soon after", "0 of 10 epochs done", "so far")),
        ("killed", ("Broke off", "Killed after", "10 of 10")),
        ("off", ("The debugger was off", "The profiler was off", "No rule has been judged")),
        ("started", ("Running", "No rule has been judged yet")),
    ],
)
def test_what_it_says_of_a_job(pages: dict[str, Path], kind: str, said: tuple[str, ...]) -> None:
    text = words(pages[kind])
    for sentence in said:
        assert sentence in text, sentence


def test_failed_and_stopped_give_the_reason(tmp_path: Path) -> None:
    for status, word in (("failed", "Failed"), ("stopped", "Stopped")):
        out = made_up.write(tmp_path / status, seconds=20, status=status, reason="the loss became nan in epoch 3")
        assert f"{word} the loss became nan in epoch 3" in words(profiler_report.write(out))


def test_a_job_without_debugger_and_profiler_is_completed_where_its_metrics_are_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"epochs": [{"epoch": 1, "valid_accuracy": 0.5}]}')
    assert summary.state(record.read(tmp_path), 0).word == "Completed"


def test_of_equal_accuracies_the_one_with_the_lower_loss_is_best(tmp_path: Path) -> None:
    found = record.read(made_up.write(tmp_path, seconds=20, epochs=3, steps=30))
    for row, loss in zip(found.epochs, (0.9, 0.7, 0.8), strict=True):
        row |= {"valid_accuracy": 0.5, "valid_loss": loss}
    said = "best validation accuracy, epoch 2; 95 % interval 46 to 54 %"
    assert ("50.0 %", said) in summary.cards(found)


def test_where_the_time_went_counts_each_second_once(tmp_path: Path) -> None:
    found = record.read(made_up.write(tmp_path))
    rows = summary.shares(found)
    assert sum(row.share for row in rows if not row.depth) == pytest.approx(1, abs=0.01)
    by = {row.label: row.seconds for row in rows}
    assert by["Evaluation"] == pytest.approx(300 * 0.65 * 0.16, rel=0.01)
    assert by["Training steps"] == pytest.approx(300 * 0.65 * 0.8, rel=0.01)
    assert sum(row.seconds for row in rows if row.depth) == pytest.approx(by["Training steps"], rel=0.02)
    assert by["waiting for data"] > by["backward"] > by["optimizer"]


def test_a_phase_that_goes_on_lasts_until_now(tmp_path: Path) -> None:
    running(tmp_path / "running")
    found = record.read(tmp_path / "running")
    train = next(phase for phase in found.phases if phase.name == "train")
    assert train.end == pytest.approx(made_up.START + 300, abs=1)  # the last sample


@pytest.mark.parametrize("number", [1, 9])  # layers: as lines, as a map
def test_hostile_names_stay_text(browser: Browser, tmp_path: Path, number: int) -> None:
    evil = (
        "$$\\frac{1}{2}$$</script><script>alert(1)</script><img src=http://example.org/x.png onerror=alert(2)>{{7*7}}"
    )
    rules = [
        replace(made_up.SICK[0], rule=evil, reason=evil, advice=evil, parameters={evil: evil}),
        Finding(evil, "profiler", "ok", evil),
    ]
    out = made_up.write(
        tmp_path, seconds=20, layers=[f"{evil}{k}" for k in range(number)], rules=rules, job=evil, status="failed",
        reason=evil, gpus=1, cores=2,
        hyperparameters={evil: evil}, images={evil: 1}, versions={evil: evil}, device=evil,
    )  # fmt: skip
    text = (out / "profiler" / "timeline.jsonl").read_text()
    (out / "profiler" / "timeline.jsonl").write_text(text.replace('"export"', json.dumps(evil)))
    page = profiler_report.write(out)
    for width in (1440, 390) if FULL else (390,):
        looks_right(browser, page, width, ALL | OF_GPU)
    assert browser.ask("document.querySelectorAll('img').length") == 0
    assert evil in browser.ask("document.body.textContent")


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_files_that_are_nonsense_are_left_out(tmp_path: Path, content: str) -> None:
    out = made_up.write(tmp_path, seconds=20, steps=100, epochs=2)
    for name in ("rules.json", "metrics.json", "profiler/job.json", "profiler/tensors.json"):
        (out / name).write_text(content)
    with (out / "profiler" / "timeline.jsonl").open("a") as timeline:
        timeline.write('3\n{"kind": "phase"}\n{"kind": "steps", "total": "x"}\n{"kind": "epoch", "epoch": "one"}\n')
    with max(out.rglob("*.algo-1.json")).open("a") as samples:
        samples.write('7\n{"Type": 1}\n{"NodeId": "algo-1", "Timestamp": "x", "Value": [], "Name": {}}\n')
    assert "epochs done" in words(profiler_report.write(out))


def test_what_went_wrong_and_what_is_missing_is_said(tmp_path: Path) -> None:
    debug = {"state": "on", "reason": "since step 9 only losses are saved: the 1024 MB for tensors are used up"}
    out = made_up.write(tmp_path, seconds=20, problems=["the timeline is cut"], debug=debug)
    (out / "rules.json").write_text(json.dumps({"rules": [], "problems": ["1 saved step cannot be read"]}))
    (out / "metrics.json").write_text(json.dumps({"chance": "NOT BETTER THAN CHANCE: so it is"}))
    text = words(profiler_report.write(out))
    for said in ("the timeline is cut", "1 saved step cannot be read", "NOT BETTER THAN CHANCE", debug["reason"]):
        assert said in text, said


def test_an_empty_folder_has_a_report_that_says_so(tmp_path: Path) -> None:
    assert "No rule has been judged" in words(profiler_report.write(tmp_path / "out"))


def test_the_service_s_own_files(browser: Browser, tmp_path: Path) -> None:
    """System metrics as the service's profiler leaves them; its last file is half written."""
    made_up.write(tmp_path / "made", seconds=120)
    (tmp_path / "made" / "profiler" / "system").rename(tmp_path / "system")
    made_up.cut(max(tmp_path.rglob("*.algo-1.json")))
    page = profiler_report.write(tmp_path)
    assert "Profiled By the service's profiler: 2 min 00 s" in words(page)
    looks_right(browser, page, 1440, OVER_TIME - {"chart-phases"})


def test_a_file_of_weights_is_among_the_settings(tmp_path: Path) -> None:
    given = {"epochs": 10, "lr": 0.001, "weights": "DEFAULT"}
    out = made_up.write(tmp_path, seconds=20, hyperparameters=given)
    (out / "metrics.json").write_text(json.dumps({"weights": "file resnet50-dogs.pth"}))
    text = words(profiler_report.write(out))
    assert "weights file resnet50-dogs.pth" in text
    assert "DEFAULT" not in text


@pytest.mark.parametrize(("mode", "step"), [("EVAL", 8), ("TRAIN", 7)])
def test_a_rule_that_fired_at_the_end_is_marked_within_the_charts(
    browser: Browser, tmp_path: Path, mode: str, step: int
) -> None:
    fired = replace(made_up.SICK[0], first=Evidence(0.3, 0.1, step, mode))
    page = profiler_report.write(made_up.write(tmp_path, seconds=20, steps=8, epochs=2, rules=[fired]))
    assert "Overfit first fired, after 8 steps" in words(page)
    browser.open(page, 1440)
    marks = """Bokeh.documents[0].roots().flatMap(plot => [...plot.center, ...plot.left, ...plot.renderers]
        .filter(r => r.type === 'Span').map(s => [s.location, plot.x_range.start, plot.x_range.end]))"""
    drawn = browser.ask(marks)
    assert len(drawn) == 4  # loss and gradients; and the best epoch in loss and accuracy
    assert all(start <= at <= end for at, start, end in drawn), drawn


def test_what_was_watched_in_the_second_stage_is_drawn_there(tmp_path: Path) -> None:
    fired = replace(made_up.SICK[0], first=Evidence(0.3, 0.1, 4, "EVAL"))
    recipe = {"epochs": 2, "head-epochs": 4}
    out = made_up.write(tmp_path, seconds=20, steps=8, epochs=2, rules=[fired], hyperparameters=recipe)
    found = record.read(out)
    chart = learning(found, summary.marks(found))["loss"]
    marks = [layout.location for layout in chart.plot.center if isinstance(layout, Span)]
    assert 4 + 4 / 4 in marks
    singles = [r for r in chart.plot.renderers if r.name == "train, single steps"]
    assert min(singles[0].data_source.data["x"]) == 4 + 1 / 4


def test_two_jobs_side_by_side(browser: Browser, tmp_path: Path) -> None:
    slow = made_up.write(tmp_path / "slow", seconds=400, rules=made_up.SICK)
    parameters = {"epochs": 10, "lr": 0.01, "batch-size": 64, "arch": "resnet50"}
    fast = made_up.write(tmp_path / "fast", seconds=200, hyperparameters=parameters)
    page = tmp_path / "compare.html"
    page.write_text(compare.render(record.read(slow), record.read(fast), ("slow", "fast")))
    charts = {f"chart-{split}_{what}" for split in ("train", "valid") for what in ("loss", "accuracy")}
    for width in (1440, 390):
        looks_right(browser, page, width, charts)
        browser.screenshot(SHOTS / f"compare-{width}.png")
    looks_right(browser, page, 390, charts, dark=True)
    browser.screenshot(SHOTS / "compare-dark-390.png")
    shot = np.asarray(Image.open(SHOTS / "compare-1440.png").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (TRAIN, VALID):  # A and B
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(shot - wanted).max(1) < 8).sum() > 500
    text = words(page)
    for said in (
        "B (fast) is faster",
        "They differ in 1 hyperparameter",
        "lr 0.001 0.01",
        "3 more are the same",
        "-50 %",
    ):
        assert said in text, said


def test_accuracies_bear_their_uncertainty_and_differ_only_beyond_it(tmp_path: Path) -> None:
    def job(name: str, accuracy: float, images: int) -> record.Record:
        out = made_up.write(tmp_path / name, seconds=20, images={"train": 9, "valid": images, "test": images})
        (out / "metrics.json").write_text(json.dumps({"test_accuracy": accuracy}))
        return record.read(out)

    few, more = job("few", 0.73, 60), job("more", 0.80, 60)
    assert ("73.0 %", "test accuracy; 95 % interval 61 to 83 %") in summary.cards(few)
    figure = compare._figure("test accuracy", MEASURES["test accuracy"], few, more)
    assert figure == ("test accuracy", "73.0 % (61 to 83 %)", "80.0 % (68 to 88 %)", "+7.0 points", "")
    (said,) = compare._verdict([figure], ("few", "more"), same_batch=True)
    assert said.startswith("No difference in test accuracy that so many images could show: 73.0 % (61 to 83 %) (A), ")
    many = [job(f"many{accuracy}", accuracy, 6000) for accuracy in (0.73, 0.80)]
    figure = compare._figure("test accuracy", MEASURES["test accuracy"], *many)
    assert figure is not None
    (said,) = compare._verdict([figure], ("few", "more"), same_batch=True)
    assert said.startswith("B (more) has the better test accuracy: 73.0 % (71.9 to")


def test_a_single_epoch_is_not_faster_than_another(tmp_path: Path) -> None:
    label = "images per second, median epoch"
    made_up.write(tmp_path, seconds=20, steps=20, epochs=2)
    read = record.read(tmp_path)
    for epochs, better in ((1, ""), (2, "B")):
        a, b = (
            replace(read, epochs=[{**row, "images_per_second": speed} for row in read.epochs[:epochs]])
            for speed in (20.0, 40.0)
        )
        figure = compare._figure(label, MEASURES[label], a, b)
        assert figure is not None
        assert (figure.better, bool(figure.difference)) == (better, bool(better))


def with_metrics(out: Path, accuracy: float, data: str, f1: dict[str, float | None], **job: Any) -> record.Record:
    made_up.write(out, seconds=20, steps=20, epochs=2, **job)
    rows = [
        {"label": label, "images": 9, "precision": None, "recall": None, "f1": value} for label, value in f1.items()
    ]
    (out / "metrics.json").write_text(json.dumps({"test_accuracy": accuracy, "job": {"data": data}, "per_class": rows}))
    return record.read(out)


@pytest.mark.parametrize(
    ("data", "job", "sides"),
    [
        ("fedc", {}, ("120 classes, 6 000 images, 0123 (A)", "120 classes, 6 000 images, fedc (B)")),
        ("0123", {"classes": 3}, ("120 classes", "3 classes, 6 000 images")),
        ("0123", {"images": {"train": 1}}, ("6 000 images", "120 classes, 1 image, 0123 (B)")),
    ],
)
def test_beside_other_data_nothing_is_better(
    tmp_path: Path, data: str, job: dict[str, Any], sides: tuple[str, str]
) -> None:
    a = with_metrics(tmp_path / "a", 0.5, "0123", {"cat": 0.5})
    b = with_metrics(tmp_path / "b", 0.9, data, {"cat": 0.9}, **job)
    (tmp_path / "page.html").write_text(compare.render(a, b, ("a", "b")))
    text = words(tmp_path / "page.html")
    for said in ("They have other data, so that neither accuracies nor times compare: ", "+40.0 points", *sides):
        assert said in text, said
    assert 'class="number better"' not in (tmp_path / "page.html").read_text()
    assert "has the better" not in text
    assert "F1 of a class" not in text


def test_the_classes_that_changed_most_come_first_and_those_that_changed_little_are_folded(tmp_path: Path) -> None:
    before = {"same": 0.5, "none": None, **{f"class {n}": 0.5 for n in range(9)}}
    a = with_metrics(tmp_path / "a", 0.5, "0123", before)
    b = with_metrics(
        tmp_path / "b", 0.9, "0123", {**before, **{f"class {n}": 0.5 - 0.01 * n for n in range(1, 9)}, "none": 0.7}
    )
    page = tmp_path / "page.html"
    page.write_text(compare.render(a, b, ("a", "b")))
    assert (
        "Classes, the largest change first F1 of a class test images A : a B : b difference none 9 0.0 % 70.0 % +70.0"
        in words(page)
    )
    assert "class 8 9 50.0 % 42.0 % -8.0 points class 7" in words(page)
    assert "1 more class changed less F1 of a class" in words(page)
    assert "same" not in [row[0] for row in compare._classes(a, b)]
    assert "B (b) has the better test accuracy: 50.0 %" in words(page)


def test_there_is_no_half_of_an_epoch_and_logarithms_are_numbers() -> None:
    assert drawing.blank(100, "epoch").xaxis[0].ticker.min_interval == 1
    for values, ticks in (((0.0012, 0.9), [0.001, 0.002, 0.005, 0.01]), ((1e-7, 1.0), [1e-7, 1e-6, 1e-5, 1e-4])):
        plot = drawing.blank(100, "x", y_axis_type="log")
        drawing.logarithmic(plot.yaxis, np.array([*values, np.nan, 0.0]))
        assert plot.yaxis[0].ticker.ticks[:4] == pytest.approx(ticks)
        assert plot.yaxis[0].formatter.format == "%g"


def test_no_torch_is_needed() -> None:
    check = (
        "import sys, container_train.reporting.profiler_report;"
        "sys.exit('torch' in sys.modules or 'smdebug' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize(("by", "epoch"), [("accuracy", 1), ("macro-f1", 2)])
def test_the_best_epoch_is_the_one_that_the_training_keeps(tmp_path: Path, by: str, epoch: int) -> None:
    rows = [(1, 0.9, 0.5), (2, 0.8, 0.7)]
    epochs = [{"epoch": n, "valid_accuracy": a, "valid_macro_f1": f1, "valid_loss": 1.0} for n, a, f1 in rows]
    content = {"epochs": epochs, "hyperparameters": {"select-by": by}}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert best_epoch(record.read(tmp_path))["epoch"] == epoch
