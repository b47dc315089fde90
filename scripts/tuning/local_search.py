"""A search on this machine: trials of the very training program, some at a time, each in a folder of its own."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local_test import stage
from local_test.engine import Engine, Program
from local_test.errors import LocalError
from scripts.aws.errors import CloudError
from scripts.console.command import progress
from scripts.dataset import folders
from scripts.jobs.watch import Metrics
from scripts.tuning.space import Value
from scripts.tuning.study import Study
from scripts.tuning.trials import Search, Trial, is_number

POLL_SECONDS = 0.3
LOG_BYTES = 200_000  # that a trial's log keeps: half of it from the front, half from the end
# What a trial need not do: it is the search that is looked at, and nothing of it is served.
LEAN = {"debug": "off", "profile-interval": "0", "measure": "none"}
# A search whose trials fail is wrong as a whole: it ends when so many have, and they are such a share.
FAILURES, FAILED_SHARE = 3, 0.5


@dataclass
class Running:
    """A trial under way: its program, and how far its log has been read."""

    trial: Trial
    program: Program
    folder: Path
    metrics: Metrics = field(default_factory=Metrics)
    read: int = 0
    pruned: bool = False

    def new_epochs(self) -> list[dict[str, float]]:
        """The epochs that its log has got since the last call."""
        known = len(self.metrics.epochs)
        with contextlib.suppress(FileNotFoundError), (self.folder / "train.log").open("rb") as log:
            log.seek(self.read)
            content = log.read()
            whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
            self.read += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                self.metrics.feed(line)
        return self.metrics.epochs[known:]


@dataclass
class LocalSearch:
    """`data` is a folder with train/, valid/ and test/; `fixed` are the hyperparameters that all trials share."""

    study: Study
    engine: Engine
    data: Path
    weights: Path | None
    fixed: Mapping[str, Value]
    name: str
    parallel: int = 1
    running: list[Running] = field(default_factory=list)
    first: int = 0  # number of the first trial of this call: what failed before may have been mended since

    def run(self, total: int, show: Callable[[Search], None]) -> None:
        """Until `total` trials are over. Raises CloudError where too many fail; what is running is stopped then."""
        for left in (self.study.folder / "trials").glob("*/ml"):  # of a search that was killed
            shutil.rmtree(left, ignore_errors=True)
        self.first = 1 + max((trial.number for trial in self.study.trials()), default=-1)
        try:
            changed = True
            while True:
                if changed:
                    self._refuse_to_go_on_failing()
                    over = sum(trial.status != "running" for trial in self.study.trials())
                    while len(self.running) < self.parallel and over + len(self.running) < total:
                        self.running.append(self._start(self.study.ask()))
                    show(self.search())
                if not self.running:
                    return
                time.sleep(POLL_SECONDS)
                changed = any([self._look(one) for one in list(self.running)])
        finally:
            self._stop_running()

    def _stop_running(self) -> None:
        """In bounded time; a second Ctrl-C would leave trials that nobody ends."""
        if not self.running:
            return
        progress("stopping what runs")
        with _undisturbed():
            for one in self.running:
                one.program.child.process.terminate()  # all at once, then each is waited for
            for one in list(self.running):
                self._end(one)
                self.study.interrupted(one.trial.number)
                self.running.remove(one)

    def search(self) -> Search:
        return self.study.search(self.name, f"this machine, {self.engine.name} engine")

    def _start(self, trial: Trial) -> Running:
        folder = self.study.folder / "trials" / trial.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The service gives a trial this one, too; the toolkit keeps it from the program.
        values = {"_tuning_objective_metric": self.study.space.objective, **LEAN, **self.fixed, **trial.parameters}
        given = {name: str(value) for name, value in values.items()}
        (folder / "hyperparameters.json").write_text(json.dumps(given, indent=1) + "\n")
        staged = stage.stage(folder / "ml", str(self.data), given, self.weights, is_sample=False, host=self.engine.host)
        cores = max(1, len(os.sched_getaffinity(0)) // self.parallel)
        program = self.engine.start_training(
            staged,
            folder / "train.log",
            environment={"OMP_NUM_THREADS": str(cores)} if self.parallel > 1 else {},
            echo=False,
        )
        return Running(trial, program, folder)

    def _look(self, one: Running) -> bool:
        """Tell the study what is new; whether anything is."""
        code = one.program.child.ended()
        epochs = one.new_epochs()
        for epoch in epochs:
            if self.study.space.objective in epoch and self.study.report(one.trial.number, epoch) and code is None:
                one.pruned = True
        if code is None and not one.pruned:
            return bool(epochs)
        self.running.remove(one)
        failure = one.folder / "ml" / "output" / "failure"
        reason = failure.read_text(errors="replace").strip() if failure.is_file() else ""
        self._end(one)
        if one.pruned:
            self.study.pruned(one.trial.number)
        elif code:
            first = reason.splitlines()[0] if reason else (one.program.child.tail().splitlines() or ["no output"])[-1]
            self.study.failed(one.trial.number, f"{first} (exit code {code})")
        elif not is_number(value := one.metrics.kept().get(self.study.space.objective, math.nan)):
            self.study.failed(one.trial.number, f"its log has no {self.study.space.objective}")
        else:
            self.study.completed(one.trial.number, value)
        return True

    def _end(self, one: Running) -> None:
        """Stop it where it still runs; keep what is small and says something of it."""
        one.program.stop()
        output = one.folder / "ml" / "output"
        for file in (output / "failure", output / "data" / "metrics.json"):
            with contextlib.suppress(OSError):
                shutil.move(file, one.folder / file.name)
        shutil.rmtree(one.folder / "ml", ignore_errors=True)
        with contextlib.suppress(OSError):
            shorten(one.folder / "train.log", LOG_BYTES)

    def _refuse_to_go_on_failing(self) -> None:
        trials = [trial for trial in self.study.trials() if trial.status != "running" and trial.number >= self.first]
        failed = [trial for trial in trials if trial.status == "failed"]
        if len(failed) >= FAILURES and len(failed) > FAILED_SHARE * len(trials):
            last = failed[-1]
            raise CloudError(
                f"{len(failed)} of {len(trials)} trials have failed, the last one because: {last.reason}; its log is"
                f" {self.study.folder / 'trials' / last.name / 'train.log'}"
            )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Ctrl-C and SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shorten(file: Path, most: int) -> None:
    """Leave out the middle of a file of more than `most` bytes."""
    size = file.stat().st_size
    if size <= most:
        return
    with file.open("rb") as opened:
        front = opened.read(most // 2)
        opened.seek(size - most // 2)
        end = opened.read()
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(front + b"\n... %d bytes left out ...\n" % (size - most) + end)
    temporary.replace(file)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the study's folder, for one search at a time. The lock is the kernel's: it ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CloudError(f"another search is working in {folder}: wait for it, or give another --name") from None
        yield


def pictures_digest(root: Path) -> str:
    """How many pictures it has, and of which names and sizes. Reading them all would take minutes for each call."""
    found, count = hashlib.sha256(), 0
    for classes in folders.find(root).splits.values():
        for path in (path for files in classes.values() for path in files):
            size = path.stat().st_size if path.exists() else -1
            found.update(os.fsencode(f"{path.relative_to(root)}\0{size}\n"))
            count += 1
    return f"{count} files, {found.hexdigest()[:12]}"


def file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:12]


def staged_data(folder: Path, data: str, *, is_sample: bool) -> tuple[Path, Sequence[str]]:
    """The folder that trials read, made once: the sample, or the split of a folder that has none; and what to say."""
    if not is_sample and stage.is_whole(Path(data)):
        return Path(data), ()
    made, notes = folder / "data", []
    if not made.exists():
        temporary = folder / "data.new"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            staged = stage.stage(temporary, data, {}, None, is_sample=is_sample)
        except LocalError as error:
            raise CloudError(str(error), error.code) from None
        stage.link_outside(staged)
        notes = staged.notes
        (temporary / "input" / "data").rename(made)
        shutil.rmtree(temporary)
    return made, notes
