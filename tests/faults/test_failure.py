"""Whatever ends a job, the first line of the failure file is what a person needs: what was wrong, where, what to do."""

import contextlib
import itertools
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from container_train import __main__, failure
from container_train.export import exporter
from container_train.reporting import training_report
from container_train.training import checkpoint
from container_train.training.engine import Trainer
from tests import trees
from tests.contract.training import Job, training
from tests.docker import engine

LONGEST = 1024  # characters that DescribeTrainingJob shows


def channel(name: str) -> Callable[[Path], object]:
    return lambda base: shutil.rmtree(base / "input" / "data" / name)


def empty(folder: str) -> Callable[[Path], object]:
    def act(base: Path) -> None:
        for file in (base / "input" / "data" / folder).rglob("*.jpg"):
            file.unlink()

    return act


def broken(base: Path) -> None:
    for file in (base / "input" / "data" / "train" / "01.red").glob("*.jpg"):
        file.write_bytes(b"this is no picture")


def stranger(base: Path) -> None:
    trees.picture(base / "input" / "data" / "test" / "11.pink" / "a.jpg", (250, 150, 150), 1)


def weights(content: bytes | dict[str, torch.Tensor]) -> Callable[[Path], object]:
    def act(base: Path) -> None:
        file = base / "input" / "data" / "weights" / "backbone.pth"
        file.parent.mkdir()
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)

    return act


def two_weights(base: Path) -> None:
    for name in ("a.pth", "b.pth"):
        file = base / "input" / "data" / "weights" / name
        file.parent.mkdir(exist_ok=True)
        file.touch()


def file_for_folder(name: str) -> Callable[[Path], object]:
    return lambda base: (base / name).write_text("a file where a folder has to be")


def nothing(_base: Path) -> None:
    pass


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Restore what the program changes in a process: signals and the log."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = logging.getLogger().handlers[:]
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    ("hurt", "hyperparameters", "line"),
    [
        (nothing, {"lr": "fast"}, r"hyperparameter lr has value 'fast': expected a number above 0 and at most 10"),
        (nothing, {"arch": "resnet5"}, r"hyperparameter arch has value 'resnet5': .*: did you mean resnet50\?"),
        (nothing, {"arch": "vit_b_16", "image-size": "64"},
         r"hyperparameter image-size has value 64: vit_b_16 does not take images of that side; leave it at 0"),
        (nothing, {"arch": "inception_v3", "image-size": "64", "freeze-until": "none"},
         r"hyperparameter image-size has value 64: inception_v3 does not take images of that side; .*299"),
        (nothing, {"freeze-until": "none", "batch-size": "1"},
         r"hyperparameter batch-size has value 1: the trained batch norm layers need at least two images for each "
         r"process; use at least 2, or set freeze-until to backbone"),
        (nothing, {"device": "cuda"}, r"hyperparameter device has value 'cuda': this machine has no NVIDIA GPU; use"),
        (nothing, {"lr": "10", "optimizer": "sgd", "freeze-until": "none", "epochs": "50"},
         r"the (validation )?loss became (nan|inf) (in|after) epoch \d+(, step \d+)?: lower lr \(it is 10\)"),
        (channel("valid"), {}, r"channel valid: .* is not there \(found: test, train\); expected channels"),
        (empty("test"), {}, r"channel test: no images in its class folders"),
        (empty("train/10.blue"), {}, r"channel train: class folder '10.blue' has no readable image: add some or"),
        (broken, {}, r"10 of 54 files are not readable images, more than 5%: .*; remove or repair them"),
        (stranger, {}, r".*/test: class '11.pink' of test is not in train: every class needs training images"),
        (weights(b"not what torch writes"), {}, r".*backbone.pth"),
        (weights({"a": torch.zeros(1)}), {}, r".*backbone.pth"),
        (two_weights, {}, r"channel weights: .* holds 2 files \(a.pth, b.pth\); expected one state_dict file"),
        (file_for_folder("checkpoints"), {}, r".*checkpoints cannot be written \(.*\): the job's user needs a folder"),
    ],
)  # fmt: skip
def test_the_first_line(
    hurt: Callable[[Path], object], hyperparameters: dict[str, str], line: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, as_it_was: None,
) -> None:  # fmt: skip
    # The program alone, within this process: a third of the time. tests/contract has the toolkit around it.
    trees.tree(tmp_path, hyperparameters)
    hurt(tmp_path)
    assert run(tmp_path, hyperparameters, monkeypatch) == 1
    first = said(tmp_path)
    assert re.match(line, first), first
    assert not list((tmp_path / "model").glob("*"))


def run(base: Path, hyperparameters: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The program over the tree `base`; its exit code."""
    words = {**trees.SMALL, **hyperparameters}
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.setattr(sys, "argv", ["train", *(word for key, value in words.items() for word in (f"--{key}", value))])
    return __main__.main()


def stopped_after(owner: object, name: str, monkeypatch: pytest.MonkeyPatch, calls: int = 1) -> None:
    """SIGTERM comes when that function has done its work so many times."""
    real, called = getattr(owner, name), itertools.count(1)

    def act(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options)
        if next(called) == calls:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(owner, name, act)


def test_a_stop_at_the_end_of_the_training_says_that_nothing_of_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_it_was: None
) -> None:
    trees.tree(tmp_path)
    words = {"head-epochs": "1", "epochs": "1", "freeze-until": "features.9"}
    for owner, name, epoch, line in (
        (Trainer, "fit", 1, "stopped after epoch 1, before stage 2 of 2; the checkpoint holds it"),
        (Trainer, "fit", 2, "stopped after the last epoch; the checkpoint holds the whole training"),
        (exporter, "export", 2, "stopped in export; the checkpoint holds the whole training"),
    ):
        with monkeypatch.context() as patched:
            stopped_after(owner, name, patched, epoch if owner is Trainer else 1)
            assert run(tmp_path, words, patched) == 143
        assert said(tmp_path) == line
        state = checkpoint.load(tmp_path / "checkpoints", {})
        assert state is not None
        assert state["epoch"] == epoch


@pytest.mark.parametrize("measure", ["full", "none"])
def test_a_stop_of_a_job_that_is_done_changes_nothing(
    measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_it_was: None
) -> None:
    trees.tree(tmp_path)
    stopped_after(training_report, "write", monkeypatch)
    assert run(tmp_path, {"epochs": "1", "measure": measure}, monkeypatch) == 0
    assert json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())["epochs"]
    assert (tmp_path / "model" / "model.json").exists() == (measure == "full")
    assert not (tmp_path / "output" / "failure").exists()


def said(base: Path) -> str:
    text = (base / "output" / "failure").read_text()
    first = text.splitlines()[0]
    assert len(first) <= LONGEST
    assert "Traceback" not in first
    assert "ExecuteUserScriptError" not in first
    return first


def program(job: Job) -> psutil.Process:
    """The training program, below PID 1 and the toolkit."""
    for process in psutil.Process(job.process.pid).children(recursive=True):
        if any(word.endswith("container_train/__main__.py") for word in process.cmdline()):
            return process
    raise AssertionError("it does not run")


def test_a_process_that_decodes_is_killed(tmp_path: Path) -> None:
    few = {"train": 4, "valid": 1, "test": 1}
    trees.tree(tmp_path, {"epochs": "10000", "workers": "1", "feature-cache": "off"}, few)
    with training("process", tmp_path) as job:
        job.wait_for("epoch=1\n")
        killed = False
        while not killed and job.process.poll() is None:
            for process in program(job).children():
                with contextlib.suppress(psutil.Error):
                    process.kill()
                    killed = True
        assert job.wait(110) != 0
    assert said(tmp_path).startswith("a process that decodes images ended unexpectedly: use a smaller batch-size"), (
        said(tmp_path)
    )


@pytest.mark.docker
def test_more_memory_than_the_container_has(tmp_path: Path) -> None:
    trees.tree(tmp_path, {"arch": "resnet50", "image-size": "224", "batch-size": "30", "freeze-until": "none"})
    folders = []
    for folder in ("input", "model", "output", "checkpoints"):
        (tmp_path / folder).mkdir(exist_ok=True)
        folders += ["--volume", f"{tmp_path / folder}:/opt/ml/{folder}"]
    limits = ["--memory", "700m", "--memory-swap", "700m", "--network", "none", "--hostname", "localhost"]
    command = ["docker", "run", "--rm", *limits, *folders, engine.image("train"), "train"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode != 0
    first = (tmp_path / "output" / "failure").read_text().splitlines()[0]
    assert "memory" in first, first


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device", "/opt/ml/model/model.bin"),
            "no space left on the disk: use a larger vol",
        ),
        (RuntimeError("[enforce fail] . No space left on device"), "no space left on the disk: use a larger volume"),
        (
            PermissionError(13, "Permission denied", "/opt/ml/x"),
            "/opt/ml/x cannot be written or read (Permission denied",
        ),
        (MemoryError(), "the memory is used up: use a smaller batch-size"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "the GPU's memory is used up: use a sm",
        ),
        (torch.AcceleratorError("CUDA error: out of memory Search for"), "the GPU's memory is used up: use a smaller"),
        (RuntimeError("NCCL error ... Cuda failure 2 'out of memory'"), "the GPU's memory is used up: use a smaller"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "the GPU's memory is used up: use a sm"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "the memory is used up: use a smaller"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_errors_that_nobody_foresaw(error: Exception, line: str) -> None:
    assert failure.reason(error).startswith(line)
