"""timeline.jsonl: what the training program did when, written by itself as it goes."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "timeline.jsonl"
COLUMNS = ("total", "data", "forward", "backward", "optimizer")
FLUSH_SECONDS = 1.0
THIN_AFTER = 10_000  # steps written at one rate; then every second one of them, and so on


class TimelineWriter:
    """Appends one JSON object per line; times in seconds since 1970, durations in seconds.

    `{"kind": "begin", "name", "start", "epoch"}` and, when it has ended, the same as `{"kind": "phase", ..., "end"}`;
    `{"kind": "steps", "epoch", "first", "every", "start", "total": [...], "data": [...], ...}`: steps `first`,
    `first + every`, ..., the first of which began at `start`; `{"kind": "epoch", ...}`: an epoch's metrics.

    A step's `total` reaches from the end of the step before to its own end, so that it holds `data` (the wait for the
    batch), `forward`, `backward` and `optimizer`. On a GPU these are the times of its own work, and `data` is the time
    that it had nothing to do until the batch was there.

    A long training is thinned: of the steps, one in `every` is written, such that its size grows with the logarithm
    of their number.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a process that is forked from this one must not hold, and later write, half of a buffer.
        self.file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.every, self.seen, self.kept = 1, 0, 0
        self.block: dict[str, Any] = {}
        self.flushed = time.monotonic()

    def begin(self, name: str, start: float, epoch: int | None) -> None:
        self._write({"kind": "begin", "name": name, "start": round(start, 6), "epoch": epoch})

    def phase(self, name: str, start: float, end: float, epoch: int | None) -> None:
        self._write({"kind": "phase", "name": name, "start": round(start, 6), "end": round(end, 6), "epoch": epoch})

    def step(self, epoch: int, step: int, start: float, seconds: tuple[float, float, float, float, float]) -> None:
        """Note a step; `seconds` in the order of COLUMNS."""
        self.seen += 1
        if self.seen % self.every:
            return
        if self.block and (self.block["epoch"], self.block["every"]) != (epoch, self.every):
            self.flush()
        if not self.block:
            self.block = {"kind": "steps", "epoch": epoch, "first": step, "every": self.every, "start": round(start, 6)}
            self.block |= {name: [] for name in COLUMNS}
        for name, value in zip(COLUMNS, seconds, strict=True):
            self.block[name].append(round(value, 6))
        self.kept += 1
        if self.kept == THIN_AFTER:
            self.every, self.kept = 2 * self.every, 0
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.flush()

    def epoch(self, record: Mapping[str, float]) -> None:
        self._write({"kind": "epoch", **record, "time": round(time.time(), 6)})

    def flush(self) -> None:
        self.flushed = time.monotonic()
        if self.block:
            block, self.block = self.block, {}
            self._write(block)

    def close(self) -> None:
        self.flush()
        os.close(self.file)

    def _write(self, content: Mapping[str, Any]) -> None:
        if content["kind"] != "steps":
            self.flush()
        # One write per line: a reader sees whole lines, whenever it looks.
        os.write(self.file, json.dumps(content, separators=(",", ":"), default=str).encode() + b"\n")
