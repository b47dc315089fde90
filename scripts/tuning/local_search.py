"""A search on this machine: trials of the very training program, some at a time, each in a folder of its own."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container_train.data import splits
from container_train.data.labels import SAMPLE
from local_test import stage
from local_test.child import Child
from local_test.engine import Engine
from local_test.errors import ignoring_signals
from scripts.aws.errors import CloudError
from scripts.console.command import progress
from scripts.jobs.watch import Metrics
from scripts.tuning.space import Value
from scripts.tuning.study import Study
from scripts.tuning.trials import Search, Trial, is_number
from scripts.tuning.tuning_jobs import TRIAL_OVERRIDES

POLL_SECONDS = 0.3
NOT_SERVED = {**TRIAL_OVERRIDES, "measure": "none"}
# A search whose trials fail is wrong as a whole: it ends when so many have, and they are such a share.
FAILURES, FAILED_SHARE = 3, 0.5


@dataclass
class Running:
    """A trial under way: its program, and how far its log has been read."""

    trial: Trial
    child: Child
    folder: Path
    metrics: Metrics = field(default_factory=Metrics)
    read: int = 0

    def new_epochs(self) -> list[dict[str, float]]:
        """The epochs that its log has got since the last call."""
        known = len(self.metrics.epochs)
        with contextlib.suppress(FileNotFoundError), self.child.log.open("rb") as log:
            log.seek(self.read)
            content = log.read()
            whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
            self.read += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                self.metrics.feed(line)
        return self.metrics.epochs[known:]

    def end(self) -> None:
        """Stop it where it still runs; keep what is small and says something of it."""
        self.child.stop()
        output = self.folder / "ml" / "output"
        for file in (output / "failure", output / "data" / "metrics.json"):
            with contextlib.suppress(OSError):
                shutil.move(file, self.folder / file.name)
        shutil.rmtree(self.folder / "ml", ignore_errors=True)

    def failure(self, code: int) -> str:
        """The first line of the reason that it gave."""
        with contextlib.suppress(OSError, IndexError):
            return f"{(self.folder / 'failure').read_text(errors='replace').split(chr(10))[0]} (exit code {code})"
        if code - 128 in signal.valid_signals():  # the last line of the log is none of the reason
            return f"ended by signal {code - 128}, {signal.strsignal(code - 128)} (exit code {code})"
        return f"{(self.child.tail().splitlines() or ['no output'])[-1]} (exit code {code})"


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
                    trials = self.study.trials()
                    self._check_failures(trials)
                    over = sum(trial.status != "running" for trial in trials)
                    while len(self.running) < self.parallel and over + len(self.running) < total:
                        self.running.append(self._start(self.study.ask()))
                    show(self.search())
                if not self.running:
                    return
                time.sleep(POLL_SECONDS)
                changed = any([self._look(one) for one in list(self.running)])
        finally:
            if self.running:
                progress("stopping what runs")
                with ignoring_signals():  # a second Ctrl-C would leave trials that nobody ends
                    for one in self.running:
                        one.child.process.terminate()  # all at once, then each is waited for
                    for one in self.running:
                        one.end()
                        self.study.interrupted(one.trial.number)

    def search(self) -> Search:
        return self.study.search(self.name, f"this machine, {self.engine.name} engine")

    def _start(self, trial: Trial) -> Running:
        folder = self.study.folder / "trials" / trial.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The service gives a trial this one, too; the toolkit keeps it from the program.
        objective = {"_tuning_objective_metric": self.study.space.objective}
        values = {**objective, **NOT_SERVED, **self.fixed, **trial.parameters}
        given = {name: str(value) for name, value in values.items()}
        (folder / "hyperparameters.json").write_text(json.dumps(given, indent=1) + "\n")
        staged = stage.stage(folder / "ml", str(self.data), given, self.weights, host=self.engine.host)
        cores = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // self.parallel))}
        child = self.engine.start_training(
            staged, folder / "train.log", environment=cores if self.parallel > 1 else {}, echo=False
        )
        return Running(trial, child, folder)

    def _look(self, one: Running) -> bool:
        """Tell the study what is new. True if anything is."""
        objective, number = self.study.space.objective, one.trial.number
        code = one.child.ended()
        epochs = one.new_epochs()
        prune = [self.study.report(number, epoch) for epoch in epochs if objective in epoch]
        if code is None and not any(prune):
            return bool(epochs)
        self.running.remove(one)
        one.end()
        value = one.metrics.kept().get(objective, math.nan)
        if code is None:
            self.study.end(number, "pruned", reason="others were better by then")
        elif code:
            self.study.end(number, "failed", reason=one.failure(code))
        elif not is_number(value):
            self.study.end(number, "failed", reason=f"its log has no {objective}")
        else:
            self.study.end(number, "completed", value)
        return True

    def _check_failures(self, trials: Sequence[Trial]) -> None:
        over = [trial for trial in trials if trial.status != "running" and trial.number >= self.first]
        failed = [trial for trial in over if trial.status == "failed"]
        if len(failed) >= FAILURES and len(failed) > FAILED_SHARE * len(over):
            last = failed[-1]
            raise CloudError(
                f"{len(failed)} of {len(over)} trials have failed, the last one because: {last.reason}; its log is"
                f" {self.study.folder / 'trials' / last.name / 'train.log'}"
            )


def images_digest(root: Path) -> str:
    """The number of images, and a hash of their names and sizes. Reading them all would take minutes for each call."""
    found, count = hashlib.sha256(), 0
    for place, file in splits.plan(root).files():
        size = file.stat().st_size if file.exists() else -1
        found.update(os.fsencode(f"{place}\0{size}\n"))
        count += 1
    return f"{count} files, {found.hexdigest()[:12]}"


def staged_data(folder: Path, data: str) -> tuple[Path, Sequence[str]]:
    """The folder that trials read, made once: the sample, or the split of a folder that has none; and notes."""
    if data != SAMPLE and splits.plan(Path(data)).is_whole:
        return Path(data), ()
    made = folder / "data"
    if made.exists():
        return made, ()
    temporary = folder / "data.new"
    shutil.rmtree(temporary, ignore_errors=True)
    staged = stage.stage(temporary, data, {}, None)
    stage.link_outside(staged)
    (temporary / "input" / "data").rename(made)
    shutil.rmtree(temporary)
    return made, staged.notes
