"""tune.py --local: whole searches of the real training program, and the ways in which they end early."""

import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from container_train.paths import locked
from scripts import tune
from scripts.console import command
from scripts.tuning import results
from scripts.tuning.local_search import images_digest
from tests import trees
from tests.conftest import FULL, Capture, Patch, need
from tests.docker import engine as docker_engine
from tests.local_test.runs import mentioning, until

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "tune.py"
# A network that trains in a second; the rest of a trial is what it is.
QUICK = ("--weights", "none", "--workers", "0", "--amp", "off")
SMALL = ("--arch", "mobilenet_v3_small", "--image-size", "64")
SECONDS = 600


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.fill(tmp_path_factory.mktemp("pictures") / "colours", {"train": 10, "valid": 4, "test": 2})


def words(pictures: Path, out: Path, *more: object, network: tuple[str, ...] = SMALL) -> list[str]:
    return [str(SCRIPT), "--local", "--data", str(pictures), "--results", str(out), *QUICK, *network, *map(str, more)]


def call(pictures: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(pictures, out, *more), capture_output=True, text=True, timeout=SECONDS)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("engine", ["process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.full])])
def test_a_search_and_the_final_training_with_the_best_values(pictures: Path, tmp_path: Path, engine: str) -> None:
    if engine == "docker":
        need(docker_engine.available(), "a Docker engine")
        docker_engine.image("train")
    trials = 8 if FULL and engine == "process" else 2
    same = ("--engine", engine, "--trials", trials, "--precision", "fp32", "--name", "some")
    done = call(pictures, tmp_path, *same, "--parallel", 2, "--json")
    search = found(done)
    assert search["where"] == f"this machine, {engine} engine"
    assert [trial["status"] for trial in search["trials"]] == ["completed"] * trials
    # The first is the program's own setting.
    assert search["trials"][0]["hyperparameters"] == {"lr": 0.001, "batch-size": 64}
    assert len({trial["hyperparameters"]["lr"] for trial in search["trials"]}) == trials
    assert all(0.001 <= trial["hyperparameters"]["lr"] <= 0.1 for trial in search["trials"])
    best = max(search["trials"], key=lambda trial: trial["value"])
    assert search["best"]["value"] == best["value"]
    folder = tmp_path / "some"
    kept = results.read(str(folder))
    assert kept is not None
    assert kept["epochs"] == "2"
    assert kept["arch"] == "mobilenet_v3_small"
    assert "debug" not in kept
    assert (folder / "tuning-report.html").stat().st_size > 100_000
    # Its last line is a command that this engine can run.
    values = f"--lr {best['hyperparameters']['lr']} --batch-size {best['hyperparameters']['batch-size']}"
    assert done.stderr.splitlines()[-1].startswith(
        f"next: local_test/train_local.sh --engine process --data {pictures} --"
        if engine == "process"
        else f"next: scripts/train.py --local --data {pictures} --from-tuning "
    )
    assert engine == "docker" or values in done.stderr.splitlines()[-1]
    # A trial leaves what is small, and nothing runs on.
    for number in range(trials):
        trial = folder / "trials" / f"trial-{number:04d}"
        assert {path.name for path in trial.iterdir()} <= {"hyperparameters.json", "train.log", "metrics.json"}
        assert "valid_accuracy=" in (trial / "train.log").read_text()
        assert sum(path.stat().st_size for path in trial.iterdir()) < 300_000
    assert mentioning(str(tmp_path)) == []
    # The frozen layers ran once for all of them.
    logs = [(folder / "trials" / f"trial-{n:04d}" / "train.log").read_text() for n in range(trials)]
    assert sum("images of train in " in log for log in logs) == 1
    assert sum("images of train read from" in log for log in logs) == trials - 1
    # The same call finds that all is done; what trials leave out belongs to the final training.
    before = (folder / "trials.json").read_text()
    last = call(pictures, tmp_path, *same, "--train-best")
    assert last.returncode == 0, last.stderr[-2000:]
    assert json.loads((folder / "trials.json").read_text())["trials"] == json.loads(before)["trials"]
    model = json.loads((folder / "best" / "ml" / "model" / "model.json").read_text())
    assert model["hyperparameters"]["lr"] == best["hyperparameters"]["lr"]
    assert (folder / "best" / "model" / "model.tar.gz").is_file()


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.full), signal.SIGTERM])
def test_an_interrupted_search_goes_on(pictures: Path, tmp_path: Path, how: signal.Signals) -> None:
    log = tmp_path / "log"
    line = words(pictures, tmp_path, "--engine", "process", "--trials", 1, "--name", "cut", "--json")
    with log.open("w") as stream:
        process = subprocess.Popen(line, stdout=stream, stderr=stream)
        running = tmp_path / "cut" / "trials" / "trial-0000" / "train.log"
        until(lambda: running.exists() and "hyperparameters:" in running.read_text())
        for _ in range(3):  # impatient ones change nothing
            process.send_signal(how)
            time.sleep(0.2)
        code = process.wait(timeout=60)
    if how == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 143
        assert "ignored" not in log.read_text()
        last = log.read_text().splitlines()[-1]
        assert "interrupted after 0 of 1 trials" in last
        assert "the same call resumes it" in last
    until(lambda: not mentioning(str(tmp_path / "cut")), 60)
    search = found(subprocess.run(line, capture_output=True, text=True, timeout=SECONDS))
    # The one that was cut off is tried again with the same values, and does not count.
    assert [trial["status"] for trial in search["trials"]] == ["completed"]
    assert search["trials"][0]["hyperparameters"] == {"lr": 0.001, "batch-size": 64}
    assert search["trials"][0]["name"] == "trial-0001"
    assert list((tmp_path / "cut" / "trials").glob("*/ml")) == []


# Stands for the training program: what it says of the side that its network does not take, without importing torch.
FAILS = """#!/bin/sh
mkdir -p "$SAGEMAKER_BASE_DIR/output"
echo "hyperparameter image-size has value 40" > "$SAGEMAKER_BASE_DIR/output/failure"
exit 1
"""


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    "program", [pytest.param("the real one", marks=pytest.mark.full), FAILS], ids=["real", "short"]
)
def test_trials_that_fail_are_recorded_and_a_share_of_them_ends_the_search(
    program: str, pictures: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    if program == FAILS:
        (tmp_path / "program").write_text(FAILS)
        (tmp_path / "program").chmod(0o755)
        monkeypatch.setattr("local_test.engine.sys", SimpleNamespace(executable=str(tmp_path / "program")))
    # Wrong in a way that only the training program can see: a side of pictures that this network does not take.
    network = ("--arch", "inception_v3", "--image-size", "40")
    more = ("--engine", "process", "--trials", "8", "--name", "bad", "--parallel", "3")
    assert command.run("tune.py", tune.main, words(pictures, tmp_path, *more, network=network)[1:]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tune.py: 3 of 3 trials have failed, the last one because: ")
    assert "image-size" in last
    trials = json.loads((tmp_path / "bad" / "trials.json").read_text())["trials"]
    assert [trial["status"] for trial in trials] == ["failed"] * 3
    assert (tmp_path / "bad" / "trials" / "trial-0000" / "failure").read_text().count("image-size")


def no_space(*_: object) -> None:
    """As a file says it that is open: without its name."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        full.write("x" * 10**6)


def test_refused_before_anything_runs(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    def last(code: int, name: str) -> str:
        _, *rest = words(pictures, tmp_path, "--engine", "process", "--name", name)
        assert command.run("tune.py", tune.main, rest) == code
        return capsys.readouterr().err.splitlines()[-1]

    (tmp_path / "busy").mkdir()
    with locked(tmp_path / "busy" / "lock", RuntimeError):
        assert "another search is working in" in last(1, "busy")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scripts.tuning.local.staged_data", no_space)
        assert last(1, "full") == f"tune.py: {tmp_path / 'full'}: No space left on device"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.db").write_text("no database")
    assert "study.db cannot be used (file is not a database): remove" in last(1, "old")
    assert "--name has value 'a_b'" in last(2, "a_b")


def test_other_images_are_another_search(tmp_path: Path) -> None:
    root = trees.fill(tmp_path / "colours", {"train": 3, "valid": 1, "test": 1})
    seen = [images_digest(root)]
    assert seen[0].startswith("15 files, ")
    trees.picture(root / "train" / "01.red" / "more.jpg", (1, 2, 3), seed=9)
    seen.append(images_digest(root))
    (root / "train" / "01.red" / "more.jpg").rename(root / "train" / "01.red" / "other.jpg")
    seen.append(images_digest(root))
    assert len(set(seen)) == 3
