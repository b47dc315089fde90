"""The process beside the training: judges what it left so far, again and again, until the training has ended.

    python -m container_train.debugger.watch --out OUT --tensors DIR [--rule TEXT] [--on-rule warn|stop] [--seconds 2]

stdin   `end STATUS` ends it after a last look at everything; so does the end of the pipe, when the training is gone.
stdout  `stop RULE: reason` once, with --on-rule stop: a rule fired that is to end the training. Nothing else.
        It is a pipe that a thread of the training process reads; nobody polls files.
        Rules of the debugger named in --rule stop the training; where none is named, all of them but class_imbalance
        do, which speaks of the data and fires before the first step.
stderr  a line for whatever could not be done.

It writes OUT/rules.json, OUT/profiler/tensors.json and, through the profiler's report, OUT/profiler-report.html.
SIGTERM and SIGINT are the training process's to handle.
"""

import argparse
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from container_train.debugger import KNOWN
from container_train.errors import TrainError
from container_train.monitoring.findings import Finding, parse_parameters
from container_train.paths import replace_file

log = logging.getLogger("watch")

NICE = 10  # the cores are for the training
REPORT_SECONDS = 20.0
"""Between two reports, at least; with them the profiler's rules are judged."""
RARELY = 50
"""Times as long as a report takes there is none."""
KILLED = "the training process was gone without a word: killed, for want of memory perhaps"
WITHOUT = ("torch", "tensorflow", "mxnet", "horovod")


class Watcher:
    """Looks at a job whose output folder is `out` and whose tensors are in `tensors`."""

    def __init__(self, out: Path, tensors: Path, rule: str = "none", on_rule: str = "warn") -> None:
        self.out, self.on_rule = out, on_rule
        self.profiler = _optional("container_train.profiler.rules")
        self.report = _optional("container_train.reporting.profiler_report")
        known = {**KNOWN, **getattr(self.profiler, "DEFAULTS", {})}
        try:
            self.parameters = parse_parameters(rule, known)
        except TrainError as error:
            log.warning("%s; all rules keep their defaults", error)
            self.parameters = {}
        named = [name for name in self.parameters if name in KNOWN]
        self.stopping = set(named or (name for name in KNOWN if name != "class_imbalance"))
        self.tensors = tensors
        self.steps: Any = None
        self.judge: Any = None
        self.told = ""
        self.due = -math.inf
        self.profiled: list[Finding] = []
        self.said: dict[Path, str] = {}
        self.run = self._job().get("started")

    def is_replaced(self) -> bool:
        """Tell whether the training was killed, and another one has begun in its folder, with a watcher of its own."""
        started = self._job().get("started")
        self.run = self.run or started
        return started != self.run

    def look(self, final: bool = False) -> None:
        """One round: new steps, all rules, and what is written of them. Never raises."""
        if self.is_replaced():
            return
        findings = self._safely("the rules of the debugger", lambda: self._debugger(final)) or []
        started = time.monotonic()
        due = final or started >= self.due
        if due:
            self.profiled = self._safely("the rules of the profiler", lambda: self._profiler(final)) or []
        findings += self.profiled
        if self.on_rule == "stop":
            self._stop(findings)
        self._safely("rules.json", lambda: self._write_rules(findings, final))
        if not due:
            return
        if self.judge is not None:
            path = self.out / "profiler" / "tensors.json"
            self._safely(path.name, lambda: self._write(path, self.judge.figures.content(final)))
        if report := self.report:
            self._safely("the report", lambda: report.write(self.out))
        now = time.monotonic()
        # They read all that was written so far: the longer the job, the rarer.
        self.due = now + max(REPORT_SECONDS, RARELY * (now - started))

    def _debugger(self, final: bool) -> list[Finding]:
        # Imported late: smdebug takes a second, in which the training process may already have something to say.
        from container_train.debugger.judge import Judge
        from container_train.debugger.saved_steps import Steps

        job = self._job()
        if self.judge is None:
            if not job and not final:
                return []  # the rules need to know what is trained
            self.judge = Judge(job, self.parameters)
        self.judge.learn(job)
        # Until the hook has named its folder, the tensors of an earlier run may lie there.
        folder = Path(job["debug"].get("folder", "")) if job.get("debug") else self.tensors
        if folder != Path() and (self.steps is None or self.steps.folder != folder):
            self.steps = Steps(folder)
        if self.steps is not None:
            self.judge.see(self.steps.new())
        findings: list[Finding] = self.judge.findings(final)
        return findings

    def _profiler(self, final: bool) -> list[Finding]:
        return [] if self.profiler is None else list(self.profiler.evaluate(self.out, self.parameters, final=final))

    def killed(self) -> None:
        """Say in job.json that the training process did not come to its own end: it cannot any more."""
        job = self._job()
        if job.get("status") == "running" and not self.is_replaced():
            job |= {"status": "failed", "reason": KILLED, "ended": round(time.time(), 3)}
            self._safely("job.json", lambda: self._write(self.out / "profiler" / "job.json", job))

    def _stop(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.status == "fired" and finding.rule in self.stopping and not self.told:
                self.told = f"stop {finding.rule}: {' '.join(finding.reason.split())}"
                self._safely("the training", lambda: print(self.told, flush=True))

    def _write_rules(self, findings: Sequence[Finding], final: bool) -> None:
        rules = [_plain(asdict(finding)) for finding in findings]
        self._write(self.out / "rules.json", {"final": final, "rules": rules}, generated=round(time.time(), 3))

    def _write(self, path: Path, content: Mapping[str, Any], **always: Any) -> None:
        """Write where `content` is not what was written last; `always` is written with it, but is no change."""
        text = json.dumps(content)
        if self.said.get(path) == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({**always, **content}, indent=1).encode())
        self.said[path] = text

    def _job(self) -> dict[str, Any]:
        try:
            content = json.loads((self.out / "profiler" / "job.json").read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _safely(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            text = f"{what}: {type(error).__name__}: {error}".splitlines()[0]
            if self.said.get(Path(what)) != text:  # once, not every two seconds
                self.said[Path(what)] = text
                log.warning("%s", text)
                log.debug("", exc_info=True)
            return None


def _optional(name: str) -> ModuleType | None:
    try:
        module = __import__(name, fromlist=["_"])
    except Exception as error:
        log.warning("%s: %s: %s", name, type(error).__name__, error)
        return None
    return module


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null, the reason says in words which it was."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Ending:
    """What the training process says over the pipe: `asked` is set when it ends, or is gone."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.told = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            if line.split(" ")[0].strip() == "end":
                self.told = True
                break
        self.asked.set()


def main() -> int:
    parser = argparse.ArgumentParser(prog="watch", description="Judge a training while it runs.")
    parser.add_argument("--out", type=Path, required=True, help="output folder of the job")
    parser.add_argument("--tensors", type=Path, required=True, help="folder of smdebug's tensors")
    parser.add_argument("--rule", default="none", help="rule:parameter=value,...;rule:...")
    parser.add_argument("--on-rule", choices=("warn", "stop"), default="warn")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two looks")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    os.nice(max(0, NICE - os.nice(0)))
    for package in WITHOUT:
        # smdebug imports what it finds of these, half a gigabyte, and its trials need none of it.
        sys.modules[package] = None  # type: ignore[assignment]
    ending = Ending()
    watcher = Watcher(options.out, options.tensors, options.rule, options.on_rule)
    while not ending.asked.wait(options.seconds) and not watcher.is_replaced():
        watcher.look()
    if not ending.told:
        watcher.killed()
    watcher.look(final=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
