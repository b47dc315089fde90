"""The process beside the training, as the training program starts it."""

import json
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from container_train.debugger import KNOWN, config
from container_train.debugger.config import SaveSchedule
from container_train.debugger.hook import Hook
from container_train.debugger.saved_steps import Steps
from container_train.debugger.watch import Watcher
from container_train.paths import SageMakerPaths
from tests.container_train.debugger.runs import batches, network, pictures, train

PROGRAM = Path(__file__).resolve().parents[3]
SECONDS = 60.0


def told(where: Path, /, **debug: Any) -> Path:
    """job.json as the training program writes it; returns the output folder."""
    out = SageMakerPaths(where).output
    (out / "profiler").mkdir(parents=True, exist_ok=True)
    job = {"job": "test", "status": "running", "debug": debug, "class_counts": dict.fromkeys("abcd", 160)}
    (out / "profiler" / "job.json").write_text(json.dumps(job))
    return out


def trained(folder: Path, **how: Any) -> Path:
    hook = train(folder, network(16), **{"epochs": 2, "lr": 0.01, **how})
    return told(folder, **hook.describe())


def rules(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "rules.json").read_text(), parse_constant=pytest.fail)
    return content


def statuses(out: Path) -> dict[str, str]:
    return {rule["rule"]: rule["status"] for rule in rules(out)["rules"] if rule["kind"] == "debugger"}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(out: Path, rule: str = "none", on_rule: str = "warn") -> subprocess.Popen[str]:
        words = [str(out), str(out.parent / "tensors"), rule, on_rule, "0.2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "container_train.debugger.watch", *words], text=True, bufsize=1, cwd=PROGRAM,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(process: subprocess.Popen[str], word: str = "end completed\n") -> tuple[str, str]:
    out, problems = process.communicate(word, timeout=SECONDS)
    assert process.returncode == 0
    return out, problems


def test_it_judges_while_the_training_runs_and_once_more_at_its_end(tmp_path: Path, start: Start) -> None:
    out = told(tmp_path)
    process = start(out)
    wait(lambda: (out / "rules.json").exists() and statuses(out).get("vanishing_gradient") == "waiting")
    assert not rules(out)["final"]
    trained(tmp_path)
    wait(lambda: statuses(out)["vanishing_gradient"] == "ok")
    assert statuses(out)["overtraining"] == "waiting"
    printed = end(process)
    assert printed[0] == ""
    content = rules(out)
    assert content["final"]
    assert list(statuses(out)) == list(KNOWN)
    assert statuses(out)["overtraining"] == "not_applicable"
    tensors = json.loads((out / "profiler" / "tensors.json").read_text())
    assert sorted(tensors["gradients"]) == ["0", "2"]
    assert len(tensors["losses"]["train"]["value"]) == 40


def test_it_ends_with_the_training_process_and_not_by_its_signals(tmp_path: Path, start: Start) -> None:
    out = trained(tmp_path)
    process = start(out)
    wait(lambda: (out / "rules.json").exists())
    running = psutil.Process(process.pid)
    assert running.nice() == 10
    for sent in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(sent)
    time.sleep(0.5)
    assert process.poll() is None
    assert running.memory_info().rss < 400 << 20
    assert end(process, "")[0] == ""  # only the end of the pipe
    assert rules(out)["final"]


def test_the_watcher_of_a_killed_training_leaves_the_next_ones_files_alone(tmp_path: Path, start: Start) -> None:
    out = told(tmp_path)
    job = out / "profiler" / "job.json"
    content = json.loads(job.read_text())
    job.write_text(json.dumps({**content, "started": 1.0}))
    watcher, process = Watcher(out, tmp_path / "tensors"), start(out)
    wait(lambda: (out / "rules.json").exists())
    job.write_text(written := json.dumps({**content, "started": 2.0}))  # as a restarted job does
    (out / "rules.json").unlink()
    assert end(process, "")[0] == ""  # killed, it seems
    watcher.killed()
    watcher.look(final=True)
    assert job.read_text() == written
    assert not (out / "rules.json").exists()


def test_a_rule_that_fires_stops_the_training_over_the_pipe_once(tmp_path: Path, start: Start) -> None:
    out = trained(tmp_path, lr=1e6)
    process = start(out, "exploding_tensor;dead_relu:threshold_layer=100", "stop")
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], SECONDS)[0]
    line = process.stdout.readline()
    assert line.startswith("stop exploding_tensor: at TRAIN step ")
    assert line.count("\n") == 1
    wait(lambda: (out / "rules.json").exists())
    assert end(process)[0] == ""


def test_a_rule_that_was_not_named_does_not_stop_it(tmp_path: Path, start: Start) -> None:
    out = trained(tmp_path, lr=1e6)
    process = start(out, "overfit", "stop")
    assert end(process)[0] == ""
    assert statuses(out)["exploding_tensor"] == "fired"


@pytest.mark.parametrize(("rule", "stops"), [("none", False), ("overfit", True)])
def test_what_is_only_worth_knowing_stops_a_training_if_it_was_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, stops: bool
) -> None:
    few, many = batches(pictures(64, 1, apart=1.5), 16), batches(pictures(160, 2, apart=1.5))
    out = trained(
        tmp_path, train_on=few, valid_on=many, epochs=6, lr=0.05
    )  # a gap, but the validation loss still falls
    Watcher(out, config.folder(SageMakerPaths(tmp_path)), rule, "stop").look(final=True)
    (found,) = (row for row in rules(out)["rules"] if row["rule"] == "overfit")
    assert (found["status"], found["severity"]) == ("fired", "information")
    assert capsys.readouterr().out.startswith("stop overfit: ") == stops


def test_a_rule_of_the_profiler_that_was_named_stops_it_and_no_other_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, lr=1e6)  # exploding_tensor fires
    job = {**json.loads((out / "profiler" / "job.json").read_text()), "started": time.time() - 3600}
    (out / "profiler" / "job.json").write_text(json.dumps(job))
    for minutes, stops in ((90, False), (30, True)):
        rule = f"max_initialization_time:threshold={minutes}"
        Watcher(out, config.folder(SageMakerPaths(tmp_path)), rule, "stop").look()
        assert capsys.readouterr().out.startswith("stop max_initialization_time: there was no step in 60") == stops


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("what", ["events", "index"])
@pytest.mark.parametrize("harm", [cut, Path.unlink, lambda file: file.write_bytes(b"")])
def test_steps_that_are_damaged_are_left_out_and_the_report_says_so(
    tmp_path: Path, what: str, harm: Callable[[Path], None]
) -> None:
    out, tensors = trained(tmp_path), config.folder(SageMakerPaths(tmp_path))
    whole = Steps(tensors)
    numbers = [step.global_step for step in whole.new()]
    assert whole.damaged == []
    (file,) = (tensors / what).glob(f"*/{numbers[3]:012d}_worker_0.*")
    harm(file)
    Watcher(out, tensors).look(final=True)
    gone = what == "index" and not file.exists()  # then nothing tells that there was such a step
    assert statuses(out)["vanishing_gradient"] == "ok"
    (checked,) = (row["checked"] for row in rules(out)["rules"] if row["rule"] == "vanishing_gradient")
    assert checked == 2 * 39
    said = f"1 saved step cannot be read, the first is {numbers[3]:012d}_worker_0.json"
    assert (said in (out / "profiler-report.html").read_text()) == (not gone)
    assert [said in words for words in rules(out)["problems"]] == [True] * (not gone)


def test_tensors_that_cannot_be_read_at_all_leave_a_report_that_says_so(tmp_path: Path) -> None:
    out, tensors = trained(tmp_path), config.folder(SageMakerPaths(tmp_path))
    (file,) = tensors.glob("collections/*/*.json")
    cut(file)
    Watcher(out, tensors).look(final=True)
    assert set(statuses(out)) == set(KNOWN)
    assert "the saved tensors: JSONDecodeError" in (out / "profiler-report.html").read_text()


def test_without_tensors_job_or_anything_it_still_ends_well(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "output" / "data"
    process = start(out)
    end(process)
    assert set(statuses(out).values()) == {"not_applicable"}


def test_a_folder_that_fills_up_and_goes_on_is_read_step_by_step(tmp_path: Path) -> None:
    full, folder = tmp_path / "full", tmp_path / "tensors"
    train(full, network(8), epochs=1)
    source = config.folder(SageMakerPaths(full))
    steps = Steps(folder)
    assert not list(steps.new())
    (folder / "index").mkdir(parents=True)
    assert not list(steps.new())
    shutil.copytree(source / "collections", folder / "collections")
    assert not list(steps.new())
    got: list[int] = []
    for number in range(25):
        name = f"{number:012d}"
        shutil.copytree(source / "events" / name, folder / "events" / name)
        target = folder / "index" / "000000000" / f"{name}_worker_0.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source / "index" / "000000000" / target.name, target)
        if number % 4 == 0:
            got += [step.global_step for step in steps.new()]
            assert got == list(range(number + 1))


def test_tensors_of_an_earlier_training_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    trained(tmp_path)
    out = told(tmp_path, state="on", reason="")  # this one's hook is not there yet
    watcher = Watcher(out, config.folder(SageMakerPaths(tmp_path)))
    watcher.look()
    assert statuses(out)["vanishing_gradient"] == "waiting"
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(20, 1))
    told(tmp_path, **hook.describe())
    train(tmp_path, network(8), epochs=1, hook=hook)
    watcher.look(final=True)
    assert watcher.evaluator.history.steps == 25


def test_a_report_or_profiler_that_fails_does_not_take_the_rules_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = trained(tmp_path)
    watcher = Watcher(out, config.folder(SageMakerPaths(tmp_path)))

    def no_report(_out: Path) -> None:
        raise RuntimeError("no report\ntoday")

    def no_profiler(*_: Any, **__: Any) -> None:
        raise RuntimeError("no profiler today")

    monkeypatch.setattr("container_train.reporting.profiler_report.write", no_report)
    monkeypatch.setattr("container_train.profiler.rules.evaluate", no_profiler)
    for _ in range(3):
        watcher.look(final=True)
    assert caplog.text.count("no report") == caplog.text.count("no profiler") == 1
    assert statuses(out)["vanishing_gradient"] == "ok"


def test_known_rules_need_neither_torch_nor_smdebug() -> None:
    script = "import sys, container_train.debugger; sys.exit(bool({'torch', 'smdebug'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROGRAM)
