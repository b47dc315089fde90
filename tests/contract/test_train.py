"""`train` keeps the platform's contract: hyperparameters, channels, failure file, signals, a user's own program."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from container_serve import artifact
from container_train.data import sample
from container_train.paths import locked
from container_train.training.metrics import DEFINITIONS, with_interval
from tests import trees
from tests.conftest import both_engines_in_full
from tests.contract.training import Job, training

# What a container adds to it (little shared memory, signals to PID 1) is tested there, the rest of it by other tests of
# processes: tests/faults/test_spot.py and test_monitor.py train, export, stop and resume.
in_docker_and_in_full = pytest.mark.parametrize(
    "kind", [pytest.param("process", marks=pytest.mark.full), pytest.param("docker", marks=pytest.mark.docker)]
)


def finish(kind: str, base: Path) -> tuple[int, Job]:
    with training(kind, base) as job:
        return job.wait(), job


@in_docker_and_in_full
def test_a_job_without_a_program_trains_the_classifier(kind: str, tmp_path: Path) -> None:
    # Full-size batches and the default workers: with what shared memory a plain `docker run` gives.
    code, job = finish(
        kind,
        trees.tree(
            tmp_path,
            {
                "epochs": "3",
                "lr": "0.01",
                "workers": "-1",
                "image-size": "224",
                "batch-size": "24",
                "precision": "int8",
            },
        ),
    )
    assert code == 0, job.text()
    made = artifact.read(tmp_path / "model", verify=True)
    assert made.classes == trees.LABELS
    assert made.document["precision"] == "int8"
    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    assert metrics["test_accuracy"] == made.document["accuracy"]["int8"]["test"]
    low, high = made.document["accuracy_interval"]["int8"]["test"]
    assert 0 < low < metrics["test_accuracy"] <= high
    assert metrics["accuracy_interval"] == made.document["accuracy_interval"]
    assert f"int8: valid {with_interval(metrics['valid_accuracy'], 12)}, test" in job.text()
    assert ("activation maps of " in job.text()) == (metrics["test_accuracy"] < 1)
    assert 0 <= metrics["calibration"]["ece"] <= 1
    assert ("THAN CHANCE: " in job.text()) == bool(metrics["chance"])
    assert metrics["images"] == {"train": 30, "valid": 12, "test": 12}
    assert (tmp_path / "output" / "data" / "report.html").stat().st_size > 100_000
    assert not (tmp_path / "output" / "failure").exists()
    assert (tmp_path / "output" / "success").exists()
    assert (tmp_path / "checkpoints" / "checkpoint.pt").exists()
    seen = {d["Name"]: re.findall(d["Regex"], job.text(), re.MULTILINE) for d in DEFINITIONS}
    assert {name: len(values) for name, values in seen.items()} == {
        name: 1 if name in ("best_epoch", "test_accuracy") else 3 for name in seen
    }
    assert float(seen["valid_accuracy"][-1]) == pytest.approx(metrics["epochs"][-1]["valid_accuracy"], rel=1e-5)


def test_a_model_that_learned_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):  # what another launcher has left in the environment is not looked at
        monkeypatch.setenv(name, "2")
    code, job = finish("process", trees.tree(tmp_path, {"epochs": "1", "lr": "1e-9"}))
    assert code == 0, job.text()
    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    said = f"BETTER THAN CHANCE: {with_interval(metrics['test_accuracy'], 12)} are predicted correctly"
    assert said in metrics["chance"]
    assert metrics["chance"] in job.text()
    assert said in (tmp_path / "output" / "data" / "report.html").read_text()
    assert "served: fp32, asked for" in job.text()
    assert re.search(r"activation maps of [1-6] mistakes? in \d+\.\d s$", job.text(), re.MULTILINE)


def is_told_of_but_neither_exported_nor_measured(trial: Job) -> None:
    assert not list((trial.base / "model").glob("*"))
    metrics = json.loads((trial.base / "output" / "data" / "metrics.json").read_text())
    assert metrics["test_accuracy"] is None
    assert metrics["valid_accuracy"] == max(row["valid_accuracy"] for row in metrics["epochs"])
    page = (trial.base / "output" / "data" / "report.html").read_text()
    assert "No model was exported" in page
    assert "Confusion matrix" not in page
    assert "test_accuracy=" not in trial.text()


@both_engines_in_full
def test_a_job_s_own_program_wins(kind: str, tmp_path: Path) -> None:
    trees.tree(tmp_path)
    trees.configure(tmp_path, {"sagemaker_program": '"mine.py"', "alpha": "3"})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'mine.txt').write_text(' '.join(sys.argv[1:]))\n"
    )
    code, job = finish(kind, tmp_path)
    assert code == 0, job.text()
    assert (tmp_path / "model" / "mine.txt").read_text() == "--alpha 3"
    assert not (tmp_path / "model" / "model.json").exists()


def test_a_job_says_what_it_does_not_use_and_what_it_cannot_rely_on(tmp_path: Path) -> None:
    trees.tree(tmp_path, {"epochs": "1", "measure": "none"})
    channels = tmp_path / "input" / "data"
    (channels / "valid").rename(channels / "validation")
    with Image.open(sample.folder_of_photographs() / "chelsea.png") as cat:
        cat.convert("RGB").save(channels / "train" / "01.red" / "cat.jpg")
        cat.convert("RGB").resize((200, 140)).save(channels / "validation" / "01.red" / "cat.png")
    (channels / "train" / "loose.jpg").write_bytes((channels / "train" / "01.red" / "000.jpg").read_bytes())
    code, job = finish("process", tmp_path)
    assert code == 0, job.text()
    assert job.text().count("data: not used: 1 file (train/loose.jpg), beside the class folders") == 1
    words = "1 of 13 images of valid are near-duplicates of images of train"
    assert f"data: {words}" in job.text()
    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    assert metrics["images"] == {"train": 31, "valid": 13, "test": 12}
    assert metrics["near_duplicates"][0]["examples"] == [["valid/01.red/cat.png", "train/01.red/cat.jpg"]]
    assert words in (tmp_path / "output" / "data" / "report.html").read_text()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}, "no network, left-pad-nope==1.0"),
        ({"PIP_NO_INDEX": "1"}, "no left-pad-nope==1.0 was found for this Python"),
    ],
)
def test_a_job_whose_requirements_cannot_be_installed_says_why(
    environment: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trees.fill(tmp_path / "input" / "data")
    trees.configure(tmp_path, {"sagemaker_program": '"mine.py"'})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("print('ran')\n")
    (tmp_path / "code" / "requirements.txt").write_text("left-pad-nope==1.0\n")
    code, job = finish("process", tmp_path)
    assert code != 0
    assert job.failure().splitlines()[0] == (
        f"requirements.txt could not be installed: {reason}; put the packages into the image"
    )


def test_a_job_by_hand_makes_no_tree_where_there_is_none(tmp_path: Path) -> None:
    base = tmp_path / "ml"
    for words in (["--epoch", "1"], ["--epochs", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "container_train", *words],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(base)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "did you mean epochs?" in done.stderr or "channel train: " in done.stderr
        assert not base.exists()


def test_two_trainings_by_hand_do_not_write_into_one_tree(tmp_path: Path) -> None:
    trees.tree(tmp_path)
    with locked(tmp_path, RuntimeError):
        done = subprocess.run(
            [sys.executable, "-m", "container_train", "--weights", "none"],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: another training is running in {tmp_path}: wait for it")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "output").exists()


@both_engines_in_full
def test_an_unknown_hyperparameter_fails_with_its_name_first(kind: str, tmp_path: Path) -> None:
    code, job = finish(kind, trees.tree(tmp_path, {"learning-rate": "0.1"}))
    assert code != 0
    assert job.failure().startswith("unknown hyperparameter learning-rate (value '0.1'): did you mean lr?")
    assert "error: unknown hyperparameter" in job.text()
    assert not list((tmp_path / "model").glob("*"))


@in_docker_and_in_full
def test_sigterm_saves_a_checkpoint_from_which_the_job_goes_on(kind: str, tmp_path: Path) -> None:
    trees.tree(tmp_path, {"epochs": "2000"})
    with training(kind, tmp_path) as job:
        job.wait_for("epoch=3\n")
        job.stop()
        assert job.wait(110) == 143
    assert "stopped in epoch" in job.failure()
    assert not (tmp_path / "model" / "model.json").exists()
    done = int(re.findall(r"^epoch=(\d+)$", job.text(), re.MULTILINE)[-1])
    trees.configure(tmp_path, {**trees.SMALL, "epochs": str(done + 2)})
    code, again = finish(kind, tmp_path)
    assert code == 0, again.text()
    assert "resuming from" in again.text()
    epochs = re.findall(r"^epoch=(\d+)$", again.text(), re.MULTILINE)
    assert epochs == [str(done + 1), str(done + 2)]
    assert artifact.read(tmp_path / "model", verify=True).classes == trees.LABELS


def test_two_trials_at_once_share_their_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOC_FEATURE_CACHE", str(tmp_path / "shared"))
    first, second = tmp_path / "first", tmp_path / "second"
    for base, rate in ((first, "0.01"), (second, "0.001")):
        trees.tree(base, {"epochs": "2", "measure": "none", "lr": rate, "batch-size": "4"})
    with training("process", first) as one, training("process", second) as other:
        assert (one.wait(), other.wait()) == (0, 0), one.text() + other.text()
    said = one.text() + other.text()
    for part in ("12 images of valid", "30 images of train"):
        assert said.count(f"feature cache: {part} in ") == 1, said
        assert said.count(f"feature cache: {part} read from {tmp_path / 'shared'}") == 1, said
    assert not (first / "checkpoints" / "features").exists()
    for trial in (one, other):
        is_told_of_but_neither_exported_nor_measured(trial)


def test_nothing_is_left_running_after_a_stop(tmp_path: Path) -> None:
    few = {"train": 4, "valid": 1, "test": 1}
    trees.tree(tmp_path, {"epochs": "2000", "workers": "2", "feature-cache": "off"}, few)
    with training("process", tmp_path) as job:
        job.wait_for("epoch=1\n")
        family = psutil.Process(job.process.pid).children(recursive=True)
        assert len(family) >= 2  # toolkit and program, and now and then the decoding processes
        job.stop()
        assert job.wait(60) == 143
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive


def test_sigterm_reaches_a_user_s_own_program(tmp_path: Path) -> None:
    trees.tree(tmp_path)
    trees.configure(tmp_path, {"sagemaker_program": '"mine.py"'})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        f"    pathlib.Path({str(tmp_path / 'ended')!r}).write_text('saved')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    with training("process", tmp_path) as job:
        job.wait_for("running\n")
        job.stop()
        assert job.wait(110) == 0
    assert (tmp_path / "ended").read_text() == "saved"


@both_engines_in_full
def test_a_derived_image_s_program_wins(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the toolkit's README has it: ENV SAGEMAKER_PROGRAM train.py, with the program in /opt/ml/code."""
    trees.tree(tmp_path, pictures={"train": 1})
    trees.configure(tmp_path, {"a b": "any name", "alpha": "3"})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'mine.txt').write_text(os.environ['SM_HP_ALPHA'])\n"
    )
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "train.py")
    with training(kind, tmp_path, passed=["SAGEMAKER_PROGRAM"]) as job:
        assert job.wait() == 0, job.text()
    assert (tmp_path / "model" / "mine.txt").read_text() == "3"


def own(base: Path, program: str, hyperparameters: dict[str, str] | None = None) -> Path:
    """A job that runs a user's own program by torchrun, as an Estimator with torch_distributed asks for it."""
    trees.tree(base, pictures={"train": 1})
    asked = {"sagemaker_program": '"mine.py"', "sagemaker_torch_distributed_enabled": "true"}
    trees.configure(base, {**asked, **(hyperparameters or {})})
    (base / "code").mkdir()
    (base / "code" / "mine.py").write_text(program)
    return base


def test_sigterm_reaches_a_program_under_torchrun(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys, time\n"
        "def end(*_):\n"
        f"    pathlib.Path({str(tmp_path / 'ended')!r}).write_text(os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('running', os.environ['WORLD_SIZE'], sys.argv[1:], flush=True)\n"
        "time.sleep(60)\n"
    )
    with training("process", own(tmp_path, program, {"words": "two of them"})) as job:
        job.wait_for("running 1 ['--words', 'two of them']\n")
        job.stop()
        assert job.wait(110) == 143
    assert (tmp_path / "ended").read_text() == "100"


def test_a_program_that_fails_under_torchrun_fails_the_job(tmp_path: Path) -> None:
    code, job = finish("process", own(tmp_path, "raise SystemExit(3)\n"))
    assert code == 1
    assert job.failure().startswith("mine.py ended with code 1: see its log")
    assert not (tmp_path / "output" / "success").exists()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("mine.py", r"mine\.py ended with code 3: see its log"),
        ("other.py", r"the program is 'mine\.py' \(sagemaker_program\), but \S+code has no such file"),
    ],
)
def test_which_program_of_the_user_s_failed_is_said_first(written: str, words: str, tmp_path: Path) -> None:
    trees.tree(tmp_path, pictures={"train": 1})
    trees.configure(tmp_path, {"sagemaker_program": '"mine.py"'})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / written).write_text("raise SystemExit(3)\n")
    code, job = finish("process", tmp_path)
    assert code != 0
    assert re.search(words, job.failure().splitlines()[0]), job.failure()


def test_a_wrong_hyperparameter_is_answered_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # each module that any of its processes imports, in the log
    with training("process", trees.tree(tmp_path, {"epochs": "few"})) as job:
        assert job.wait() == 1
        modules = {
            line.rpartition("|")[2].strip() for line in job.text().splitlines() if line.startswith("import time")
        }
        assert {"sagemaker_training", "container_train.hyperparameters"} <= modules
        assert not {"torch", "smdebug"} & modules


@pytest.mark.parametrize(("given", "shown"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_that_wait_sleep_soon(
    given: dict[str, str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings on the same cores used more than twice the processor time where they span."""
    monkeypatch.delenv("OMP_WAIT_POLICY")
    for name, value in {"OMP_DISPLAY_ENV": "VERBOSE", **given}.items():
        monkeypatch.setenv(name, value)
    trees.tree(tmp_path)
    weights = tmp_path / "input" / "data" / "weights"
    weights.mkdir()
    (weights / "backbone.pth").write_bytes(b"not what torch writes")
    code, job = finish("process", tmp_path)
    assert code == 1, "torch cannot read that"
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", job.text()) == [shown]  # what libgomp says when it is loaded


def test_what_is_wrong_with_the_data_stands_first_in_the_failure_file(tmp_path: Path) -> None:
    """Through the toolkit; tests/faults/test_failure.py has all the rest of what may be wrong."""
    trees.tree(tmp_path)
    (tmp_path / "input" / "data" / "weights").mkdir()
    code, job = finish("process", tmp_path)
    assert code != 0
    assert job.failure().startswith("channel weights: ")
    assert "Traceback" not in job.text()


def test_train_outside_a_tree_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    code, job = finish("process", tmp_path)
    assert code == 1
    assert "hyperparameters.json does not exist: start this image with `train` over an /opt/ml tree" in job.text()
    assert len(job.text().strip().splitlines()) == 1
    assert "hyperparameters.json does not exist" in job.failure()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("hyperparameters", "[]", "cannot be read as a JSON object: it holds an array"),
        ("inputdataconfig", None, "does not exist: start this image with `train` over an /opt/ml tree"),
        ("inputdataconfig", "{", "cannot be read as a JSON object: "),
        ("resourceconfig", "{}", ": current_host is null and hosts is null: expected the name of this host"),
        ("resourceconfig", '{"current_host": "algo-3", "hosts": ["algo-1", "algo-2"]}',
         ': current_host is "algo-3" and hosts is ["algo-1", "algo-2"]: expected'),
    ],
)  # fmt: skip
def test_a_configuration_that_no_job_can_run_with(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    trees.tree(tmp_path)
    file = tmp_path / "input" / "config" / f"{name}.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    code, job = finish("process", tmp_path)
    assert code == 1
    assert job.failure().startswith(f"{file}{words}" if words.startswith(":") else f"{file} {words}")
    assert len(job.text().strip().splitlines()) == 1


@pytest.mark.full  # ten seconds of waiting; tests/container_train/test_signals.py does not wait
def test_a_host_whose_name_is_not_known_is_waited_for_until_the_job_is_stopped(tmp_path: Path) -> None:
    trees.tree(tmp_path)
    hosts = {"current_host": "localhost", "hosts": ["localhost", "byoc.invalid"], "network_interface_name": "lo"}
    (tmp_path / "input" / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    with training("process", tmp_path) as job:
        job.wait_for("waiting for host byoc.invalid, for at most 300 s\n")
        job.stop()
        assert job.wait(30) == 143
    assert job.failure() == "stopped while host byoc.invalid was waited for; nothing is lost"


def test_a_model_folder_that_is_none_stands_in_the_failure_file(tmp_path: Path) -> None:
    trees.tree(tmp_path)
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    (tmp_path / "model").write_bytes(b"")
    code, job = finish("process", tmp_path)
    assert code == 1
    assert job.failure() == f"{tmp_path / 'model'} cannot be written: File exists"


def test_an_error_of_the_toolkit_begins_with_its_reason(tmp_path: Path) -> None:
    trees.tree(tmp_path)
    gone = tmp_path / "gone"
    trees.configure(tmp_path, {"sagemaker_program": '"mine.py"', "sagemaker_submit_directory": f'"{gone}"'})
    code, job = finish("process", tmp_path)
    assert code != 0, job.text()
    first = (tmp_path / "output" / "failure").read_text().splitlines()[0]
    assert str(gone) in first
    assert "Framework Error" not in first


def test_a_stop_after_the_program_has_ended_does_not_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one host of several ends first, and Docker Compose stops the others. A toolkit that takes its time."""
    toolkit = tmp_path / "packages" / "sagemaker_training" / "cli"
    toolkit.mkdir(parents=True)
    for package in (toolkit, toolkit.parent):
        (package / "__init__.py").touch()
    (toolkit / "train.py").write_text(
        "import os, pathlib, subprocess, time\n"
        "subprocess.run(['sleep', '0.5'], check=True)\n"
        "print('the program has ended', flush=True)\n"
        "time.sleep(1)\n"
        "pathlib.Path(os.environ['SAGEMAKER_BASE_DIR'], 'output', 'success').touch()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    with training("process", trees.tree(tmp_path / "ml", pictures={"train": 1})) as job:
        job.wait_for("the program has ended\n")
        job.stop()
        assert job.wait(30) == 0
