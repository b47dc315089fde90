"""The process beside the training: judges what it left so far, again and again, until the training has ended.

    python -m container_train.debugger.watch OUT TENSORS RULE warn|stop [SECONDS between two looks]

stdin   `end STATUS` ends it after a last look at everything; so does the end of the pipe, when the training is gone.
stdout  `stop RULE: reason` once, with `stop`: a rule fired that is to end the training. Nothing else.
        It is a pipe that a thread of the training process reads; nobody polls files.
        Rules named in RULE stop the training; where none is named, all of the debugger but class_imbalance do, which
        speaks of the data and fires before the first step.
stderr  a line for each thing that could not be done.

It writes OUT/rules.json, OUT/profiler/tensors.json and, through the profiler's report, OUT/profiler-report.html.
SIGTERM and SIGINT are the training process's to handle.
"""

import json
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from container_train.debugger import KNOWN
from container_train.monitoring.findings import Finding, parse_parameters
from container_train.paths import replace_file
from container_train.profiler import rules, store
from container_train.reporting import profiler_report
from container_train.reporting.words import count

log = logging.getLogger("watch")

NICE = 10  # the cores are for the training
REPORT_SECONDS = 20.0  # between two reports, at least; with them the profiler's rules are judged
RARELY = 50  # times as long as a report takes there is none
KILLED = "the training process was killed, perhaps because memory ran out"
WITHOUT = ("torch", "tensorflow", "mxnet", "horovod")


class Watcher:
    """Looks at a job whose output folder is `out` and whose tensors are in `tensors`."""

    def __init__(self, out: Path, tensors: Path, rule: str = "none", on_rule: str = "warn") -> None:
        self.out, self.tensors, self.on_rule = out, tensors, on_rule
        self.parameters = parse_parameters(rule, {**KNOWN, **rules.DEFAULTS})
        self.steps: Any = None
        self.evaluator: Any = None
        self.told = ""
        self.due = -math.inf
        self.profiled: list[Finding] = []
        self.problems: dict[str, str] = {}  # of each thing that could not be done, its newest reason
        self.run = store.job(self.out).get("started")

    def is_replaced(self) -> bool:
        """Tell whether the training was killed, and another one has begun in its folder, with a watcher of its own."""
        started = store.job(self.out).get("started")
        self.run = self.run or started
        return bool(started != self.run)

    def look(self, final: bool = False) -> None:
        """One round: new steps, all rules, and what is written of them. Never raises."""
        if self.is_replaced():
            return
        findings: list[Finding] = self._safely("the rules of the debugger", self._debugger, final) or []
        started = time.monotonic()
        due = final or started >= self.due
        if due:
            judge = partial(rules.evaluate, self.out, self.parameters, final=final)
            self.profiled = self._safely("the rules of the profiler", judge) or []
        findings += self.profiled
        if self.on_rule == "stop":
            self._stop(findings)
        rows, problems = [_plain(asdict(finding)) for finding in findings], list(self.problems.values())
        content = {"final": final, "rules": rows, "problems": problems}
        self._safely("rules.json", self._write, self.out / "rules.json", content)
        if not due:
            return
        if self.evaluator is not None:
            figures = self.evaluator.figures()
            self._safely("tensors.json", self._write, self.out / "profiler" / "tensors.json", figures)
        self._safely("the report", profiler_report.write, self.out)
        now = time.monotonic()
        # They read all that was written so far: the longer the job, the rarer.
        self.due = now + max(REPORT_SECONDS, RARELY * (now - started))

    def _debugger(self, final: bool) -> list[Finding]:
        # Imported late: smdebug takes a second, in which the training process may already have something to say.
        from container_train.debugger.evaluator import RuleEvaluator
        from container_train.debugger.saved_steps import Steps

        job = store.job(self.out)
        if self.evaluator is None:
            if not job and not final:
                return []  # the rules need to know what is trained
            self.evaluator = RuleEvaluator(self.parameters)
        # Until the hook has named its folder, the tensors of an earlier run may lie there.
        folder = Path(job["debug"].get("folder", "")) if job.get("debug") else self.tensors
        if folder != Path() and (self.steps is None or self.steps.folder != folder):
            self.steps = Steps(folder)
        if self.steps is not None:
            self._safely("the saved tensors", self.evaluator.see, self.steps.new())
            if damaged := self.steps.damaged:
                steps = f"{count(len(damaged), 'saved step')} cannot be read, the first is {damaged[0]}"
                self._problem("damaged", f"the rules of the debugger leave out what is damaged: {steps}")
        return list(self.evaluator.findings(job, final=final))

    def killed(self) -> None:
        """Say in job.json that the training process did not come to its own end: it cannot any more."""
        job = store.job(self.out)
        if job.get("status") == "running" and not self.is_replaced():
            job |= {"status": "failed", "reason": KILLED, "ended": round(time.time(), 3)}
            self._safely("job.json", self._write, self.out / "profiler" / store.JOB, job)

    def _stop(self, findings: Sequence[Finding]) -> None:
        """Tell the training to end for a rule that the user named, or else for any that says more than information."""
        for finding in findings if not self.told else ():
            grave = finding.kind == "debugger" and finding.severity != "information"
            serious = grave and finding.rule != "class_imbalance"
            if finding.status == "fired" and (finding.rule in self.parameters if self.parameters else serious):
                self.told = f"stop {finding.rule}: {' '.join(finding.reason.split())}"
                self._safely("the training", lambda: print(self.told, flush=True))
                return

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(content, indent=1).encode())

    def _safely(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            self._problem(what, f"{what}: {type(error).__name__}: {error}".splitlines()[0])
            log.debug("", exc_info=True)
            return None

    def _problem(self, what: str, text: str) -> None:
        if self.problems.get(what) != text:  # once, not every two seconds
            self.problems[what] = text
            log.warning("%s", text)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null, the reason says in words which it was."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(out: str, tensors: str, rule: str, on_rule: str, seconds: str = "2") -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    os.nice(max(0, NICE - os.nice(0)))
    for package in WITHOUT:
        # smdebug imports what it finds of these, half a gigabyte, and its trials need none of it.
        sys.modules[package] = None  # type: ignore[assignment]
    watcher = Watcher(Path(out), Path(tensors), rule, on_rule)
    while not select.select([sys.stdin], [], [], float(seconds))[0] and not watcher.is_replaced():
        watcher.look()
    if not sys.stdin.readline():
        watcher.killed()
    watcher.look(final=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
