"""Debugger and profiler as the training program knows them: phases, steps, modes, epochs, and a rule's wish to stop.

Nothing in here ends a training: what cannot be done is one line of log and a word in job.json, which the report shows.
"""

import contextlib
import json
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from torch import nn

from container_train import job
from container_train.debugger import config
from container_train.debugger.config import SaveSchedule
from container_train.debugger.hook import Hook
from container_train.errors import Stopped
from container_train.hyperparameters import Hyperparameters
from container_train.monitoring.findings import counted
from container_train.monitoring.sidecar import SAMPLER, WATCHER, Sidecar
from container_train.paths import SageMakerPaths, replace_file
from container_train.profiler.step_clock import GpuStepClock, StepClock
from container_train.profiler.store import JOB
from container_train.profiler.timeline import TimelineWriter
from container_train.profiler.trace import Trace
from container_train.reporting.tracking import Write
from container_train.reporting.words import count

log = logging.getLogger(__name__)

REPORT, RULES = "profiler-report.html", "rules.json"
# For the last look at everything and the last report; after SIGTERM there are 120 s for all that has to happen.
END_SECONDS, STOP_SECONDS, SAMPLER_SECONDS = 60.0, 20.0, 5.0

T = TypeVar("T")


class Monitor:
    """A job's debugger and profiler; as it is made, before `start`, everything is off and costs nothing.

    As a context it ends with the job: completed, stopped or failed, as what passes through says.
    """

    def __init__(self) -> None:
        self.stop_reason = ""  # a rule that is to end the training, and what it saw
        self.job: dict[str, Any] = {}
        self.timeline: TimelineWriter | None = None
        self.hook = Hook()
        self.trace: Trace | None = None
        self.sampler: Sidecar | None = None
        self.watcher: Sidecar | None = None
        self.track: Write = lambda record: None  # an epoch; after a restart also those from before it
        self.out = Path()
        self.clock = StepClock()
        self.marks: list[Any] = []  # of the step: the end of the one before, its batch, and what `mark` notes

    @classmethod
    def start(cls, tree: SageMakerPaths, hp: Hyperparameters) -> "Monitor":
        """Start what the hyperparameters ask for."""
        monitor = cls()
        if hp.debug == "off" and not hp.profile_interval and hp.torch_profile == "none":
            return monitor
        try:
            monitor._start(tree, hp)
        except Exception as error:
            log.warning("monitor: it could not be started, the training continues without it (%s)", error)
            for sidecar in filter(None, (monitor.sampler, monitor.watcher)):
                sidecar.end()
            return cls()
        return monitor

    def _start(self, tree: SageMakerPaths, hp: Hyperparameters) -> None:
        self.tree, self.hp, self.out = tree, hp, tree.output
        self.folder = self.out / "profiler"
        # Of an earlier run in this tree; the platform gives a restarted job an empty one.
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in (REPORT, RULES):
            (self.out / name).unlink(missing_ok=True)
        self.job = job.describe(tree, hp)
        self.timeline = TimelineWriter(self.folder)
        self.note()
        if hp.profile_interval:
            words = [str(self.folder), str(hp.profile_interval), job.node(tree)]
            self.sampler = Sidecar(SAMPLER, words, self.folder / "sampler.log")
        if hp.debug == "on" or hp.profile_interval:
            words = [str(self.out), str(config.folder(tree)), hp.rule, hp.on_rule]
            self.watcher = Sidecar(WATCHER, words, self.folder / "watcher.log", listener=self._hear)

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "stop" and not self.stop_reason:
            self.stop_reason = rest

    def note(self, **facts: Any) -> None:
        """Add facts to job.json."""
        if not self.job:
            return
        self.job.update(facts)
        with self._safely("job.json could not be written"):
            replace_file(self.folder / JOB, json.dumps(self.job, indent=1, default=str).encode())

    def describe(self, **facts: Any) -> None:
        """Add facts on what is trained to job.json's `debug`."""
        self.note(debug={**self.job.get("debug", {}), **facts})

    @contextlib.contextmanager
    def phase(self, name: str, epoch: int | None = None) -> Iterator[None]:
        """Time what happens within; phases may nest."""
        start = time.time()
        self._write(TimelineWriter.begin, name, start, epoch)
        try:
            yield
        finally:
            self._write(TimelineWriter.phase, name, start, time.time(), epoch)

    def debug(self, head: nn.Module, loss: nn.Module, schedule: SaveSchedule, scale: Callable[[], float]) -> None:
        """Save tensors of what is trained, `head`, and of its loss, from now until `release`."""
        if not self.job:
            return
        if self.hp.torch_profile != "none":
            with self._safely("torch.profiler could not be started"):
                self.trace = Trace(self.hp.torch_profile, self.folder)
        if self.hp.debug == "on":
            self.hook = Hook(self.tree, schedule, interval=self.hp.debug_interval, scale=scale)
            self.hook.register(head, loss)
            self.describe(**self.hook.describe())

    def release(self) -> None:
        """Take the hooks off the network; it is going to be exported, or the training has failed."""
        trace, self.trace, hook, self.hook = self.trace, None, self.hook, Hook()
        if trace is not None:
            with self._safely("the trace of torch.profiler could not be written"):
                trace.close()
        if hook.state != "off":
            hook.close()
            self.describe(**hook.describe())

    def batches(self, source: Iterable[T], epoch: int, first: int, *, gpu: bool = False) -> Iterator[T]:
        """The items of `source`, with the steps between them timed; `first` is the number of the first step.

        See TimelineWriter on what is timed on a GPU.
        """
        if self.timeline is None:
            yield from source
            return
        number, clock = first, GpuStepClock() if gpu else StepClock()
        self.clock = clock
        wall = time.time() - time.perf_counter()
        waiting: deque[tuple[int, float, list[Any]]] = deque()

        def write(most: int) -> None:
            """Write all steps but the newest `most`."""
            while len(waiting) > most:
                step, start, marks = waiting.popleft()
                self._write(TimelineWriter.step, epoch, step, wall + start, clock.seconds(marks))

        try:
            started, ended = time.perf_counter(), clock.mark()
            for item in source:
                self.marks = [ended, clock.mark()]
                yield item
                now, last = time.perf_counter(), clock.mark()
                if len(self.marks) == 5:  # otherwise no step was made of this one
                    waiting.append((number, started, [*self.marks, last]))
                    number += 1
                if self.trace is not None:
                    with self._safely("torch.profiler failed"):
                        self.trace.step()
                write(clock.late)
                # What was done here since `now` is nobody's step.
                started, ended = (now, last) if clock.late else (time.perf_counter(), clock.mark())
        finally:
            write(0)

    def mark(self) -> None:
        """In a step: forward pass, backward pass, optimizer are done, in this order."""
        if self.timeline is not None:
            self.marks.append(self.clock.mark())

    def epoch(self, record: Mapping[str, float]) -> None:
        """An epoch has ended with these metrics."""
        self._write(TimelineWriter.epoch, record)
        self.track(record)

    def _write(self, write: Callable[..., None], *values: Any) -> None:
        """Write to the timeline; one that cannot be written ends."""
        if self.timeline is None:
            return
        try:
            write(self.timeline, *values)
        except Exception as error:
            self._problem(f"the timeline could not be written ({type(error).__name__}: {error})")
            self.timeline = None

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, Stopped):
            self.close("stopped", str(error))
        elif error is not None:
            self.close("failed", (str(error).strip() or type(error).__name__).splitlines()[0])
        else:
            self.close("completed", self.job.get("reason", ""))

    def close(self, status: Literal["completed", "stopped", "failed"], reason: str = "") -> None:
        """End everything; then the report is there. Takes END_SECONDS at most, after a stop STOP_SECONDS."""
        if not self.job:
            return
        self.release()
        self._write(TimelineWriter.close)
        self.timeline = None
        if self.sampler is not None:
            self.sampler.end()
            self._problem(self.sampler.wait(SAMPLER_SECONDS))
        self.note(status=status, reason=reason, ended=round(time.time(), 3))
        if self.watcher is not None:
            self.watcher.end(status)
            if problem := self.watcher.wait(STOP_SECONDS if status == "stopped" else END_SECONDS):
                self._problem(problem)
                self.note()
                with self._safely("the report could not be written"):
                    from container_train.reporting import profiler_report  # its drawing library is needed only here

                    profiler_report.write(self.out)  # a killed watcher's last one says that the job runs
            with self._safely("rules.json could not be read"):
                self._tell(json.loads((self.out / RULES).read_text())["rules"])
        self.job = {}

    def _tell(self, rules: list[dict[str, Any]]) -> None:
        """One line of log for the report, and one for each rule that fired."""
        fired = [rule for rule in rules if rule["status"] == "fired"]
        judged = sum(rule["status"] in ("fired", "ok") for rule in rules)
        found = counted([rule["severity"] for rule in fired])
        # Not where it lies now: a local run that failed is moved, and in the cloud this is a path in output.tar.gz.
        where = (self.out / REPORT).relative_to(self.tree.base)
        log.info("report: %s; %s could judge and found: %s", where, count(judged, "rule"), found)
        for rule in fired:
            log.info("rule %s fired (%s): %s", rule["rule"], rule["severity"], rule["reason"])

    def _problem(self, words: str) -> None:
        problems = self.job.setdefault("problems", [])
        if words and words not in problems:  # a full disk is told once
            log.warning("monitor: %s", words)
            problems.append(words)

    @contextlib.contextmanager
    def _safely(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._problem(f"{what} ({type(error).__name__}: {error})")


OFF = Monitor()
