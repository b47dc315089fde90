"""A job that is interrupted, wherever it is, ends as one that was not: bitwise, with at most one epoch done again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from container_train.errors import TrainError
from container_train.training import checkpoint
from tests import trees
from tests.conftest import FULL, need
from tests.contract.training import Job, training

# All that a job has: frozen layers on disk, training, evaluation, export, int8. (The pictures of it are decoded by the
# program itself: with one thread for each sum the weights are the same to the bit.)
JOB = {"epochs": "6", "precision": "auto" if FULL else "fp32", "batch-size": "4", "checkpoint-every": "3"}
STOPS_WITHIN = 60.0  # s, of the 120 that the platform gives
EPOCH = re.compile(r"^epoch=(\d+)$", re.MULTILINE)


def weights(base: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(base / "model" / "model.pth", weights_only=True)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], float]:
    """The weights of an uninterrupted job, and about how many seconds it takes."""
    base = trees.tree(tmp_path_factory.mktemp("whole"), JOB)
    with training("process", base) as job:
        started = psutil.Process(job.process.pid).create_time()
        assert job.wait() == 0, job.text()
    return weights(base), (base / "model" / "model.json").stat().st_mtime - started


def end(job: Job, name: str) -> None:
    """SIGTERM as the platform gives it, to PID 1; SIGKILL to the program, as the kernel gives it."""
    if name == "SIGTERM":
        job.stop()
        assert job.wait(STOPS_WITHIN) in (0, 143), job.text()
        return
    for process in psutil.Process(job.process.pid).children(recursive=True):
        if "container_train" in " ".join(process.cmdline()) and "sagemaker_training" not in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
    job.wait(STOPS_WITHIN)


def goes_on(base: Path, before: str, theirs: dict[str, torch.Tensor]) -> None:
    """Start the job again, which `before` is the log of; it ends well, with those weights."""
    done = sorted({int(n) for n in EPOCH.findall(before)})
    with training("process", base) as job:
        assert job.wait() == 0, job.text()
    again = [int(n) for n in EPOCH.findall(job.text())]
    assert again == list(range(len(done) + 1, 7)) or again == list(range(len(done), 7)), (done, again)
    if "best_epoch=" in before:
        assert not again  # what was trained to its end is not trained again
    assert "not readable" not in job.text()
    ours = weights(base)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "moments",
    [
        # One after the other: killed while it trains, and what goes on with it stopped while it quantises.
        [("epoch=2\n", "SIGKILL"), ("int8: calibrating", "SIGTERM")],
        pytest.param([("device: cpu", "SIGTERM")], marks=pytest.mark.full),
    ],
)
def test_an_interrupted_job_ends_as_an_uninterrupted_one(
    moments: list[tuple[str, str]], whole: tuple[dict[str, torch.Tensor], float], tmp_path: Path
) -> None:
    base, before = trees.tree(tmp_path, {**JOB, "precision": "auto"}), ""
    for words, name in moments:
        with training("process", base) as job:
            job.wait_for(words)
            end(job, name)
        before += job.text()
    trees.configure(base, {**trees.SMALL, **JOB})
    goes_on(base, before, whole[0])


@pytest.mark.full  # tests/container_train/training/test_recipes.py does it without processes and signals
def test_a_recipe_that_is_interrupted_in_both_stages_ends_as_one_that_is_not(tmp_path: Path) -> None:
    given = {"recipe": "finetune", "head-epochs": "2", "epochs": "2", "batch-size": "4", "measure": "none"}
    for name, moments in {"whole": [], "cut": [("epoch=1\n", "SIGTERM"), ("epoch=3\n", "SIGTERM")]}.items():
        base = trees.tree(tmp_path / name, given)
        for words, signal_name in moments:
            with training("process", base) as job:
                job.wait_for(words)
                end(job, signal_name)
        with training("process", base) as job:
            assert job.wait() == 0, job.text()
    assert "resuming from" in job.text()
    whole, cut = (
        torch.load(tmp_path / name / "checkpoints" / checkpoint.CURRENT, weights_only=True) for name in ("whole", "cut")
    )
    assert whole["best"]["epoch"] == cut["best"]["epoch"]
    for part in ("model", "average"):
        assert all(torch.equal(cut[part][name], tensor) for name, tensor in whole[part].items())


@pytest.mark.full
@pytest.mark.parametrize("number", range(20))
def test_at_random_moments(number: int, whole: tuple[dict[str, torch.Tensor], float], tmp_path: Path) -> None:
    theirs, seconds = whole
    base = trees.tree(tmp_path, JOB)
    moment = random.Random(number).uniform(0.1, 1.0) * seconds
    with training("process", base) as job:
        try:
            assert job.wait(moment) == 0  # it was faster this time
        except subprocess.TimeoutExpired:
            end(job, "SIGTERM" if number % 2 else "SIGKILL")
    goes_on(base, job.text(), theirs)


# Python runs this when it has given up its signal handlers.
SLOW_END = """
import time
from pathlib import Path

class Slow:
    def __del__(self, sleep=time.sleep, ending=Path({ending!r}), touch=Path.touch):
        touch(ending)
        sleep(1)

keep = Slow()
"""


def test_a_stop_that_comes_at_the_very_end_changes_nothing(tmp_path: Path) -> None:
    ending = tmp_path / "ending"
    (tmp_path / "sitecustomize.py").write_text(SLOW_END.format(ending=str(ending)))
    command = [sys.executable, "-m", "container_train", "--epochs", "none"]
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(trees.tree(tmp_path / "job")), "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not ending.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 1  # as after a wrong hyperparameter


def test_a_kill_of_the_entry_process_alone_leaves_nothing_behind(tmp_path: Path) -> None:
    base = trees.tree(tmp_path, {**JOB, "epochs": "1000", "debug": "on", "profile-interval": "500"})
    with training("process", base) as job:
        job.wait_for("epoch=2\n")
        others = psutil.Process(job.process.pid).children(recursive=True)
        job.process.kill()
        _, left = psutil.wait_procs(others, timeout=30)
        for process in left:
            process.kill()
    # The toolkit, the program, the watcher and the sampler.
    assert len(others) == 4
    assert left == []


def test_a_checkpoint_torn_anywhere_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"lr": 1}, {"epoch": epoch, "step": 0, "model": {"w": torch.randn(100, 100)}})
    current = tmp_path / checkpoint.CURRENT
    content = current.read_bytes()
    for kept in random.Random(0).sample(range(len(content)), 20):
        current.write_bytes(content[:kept])
        state = checkpoint.load(tmp_path, {"lr": 1})
        assert state is not None
        assert state["epoch"] == 1


def test_what_a_kill_leaves_while_a_checkpoint_is_written_is_never_loaded(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"lr": 1}, {"epoch": epoch, "step": 0})
    (tmp_path / checkpoint.NEXT).write_bytes(b"half of it")
    state = checkpoint.load(tmp_path, {"lr": 1})
    assert state is not None
    assert state["epoch"] == 2
    (tmp_path / checkpoint.CURRENT).unlink()  # between the two names that change
    state = checkpoint.load(tmp_path, {"lr": 1})
    assert state is not None
    assert state["epoch"] == 1


# Saves on and on, in a process that is killed; what can be loaded then is the last one that was saved, or the next.
KILLED_WHILE_SAVING = """
import os, random, signal, struct, sys, time
from pathlib import Path
import torch
from container_train.training import checkpoint

folder, dice, last = Path(sys.argv[1]), random.Random(0), 0
for _ in range(int(sys.argv[2])):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        while True:
            last += 1
            state = {"epoch": last, "step": 0, "model": {"w": torch.full((500_000,), float(last))}}
            checkpoint.save(folder, {"lr": 1}, state)
            os.write(write, struct.pack("q", last))
    os.close(write)
    time.sleep(dice.uniform(0.01, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while told := os.read(read, 8):
        last = struct.unpack("q", told)[0]
    os.close(read)
    state = checkpoint.load(folder, {"lr": 1})
    found = state["epoch"] if state else 0
    assert found in (last, last + 1), (found, last)
    assert not found or set(state["model"]["w"].tolist()) == {float(found)}
    last = found
print(last)
"""


def test_a_kill_at_any_moment_of_writing_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), "200" if FULL else "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > (200 if FULL else 30)
    assert "not readable" not in done.stderr  # none was even half written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    )
    need(mounted, "the right to mount a small disk (root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_checkpoint_that_is_there(small_disk: Path) -> None:
    checkpoint.save(small_disk, {"lr": 1}, {"epoch": 1, "step": 0, "model": torch.zeros(100_000)})
    with pytest.raises(TrainError, match="could not be written: No space left on device; the one before it is kept"):
        checkpoint.save(small_disk, {"lr": 1}, {"epoch": 2, "step": 0, "model": torch.zeros(200_000)})
    state = checkpoint.load(small_disk, {"lr": 1})
    assert state is not None
    assert state["epoch"] == 1
    assert [path.name for path in small_disk.iterdir()] == [checkpoint.CURRENT]
