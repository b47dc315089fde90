"""Whether a process of several gets on: it says so in a file of its own, and its launcher looks at that.

A process that hangs but lives (in a read of a file system that does not answer, in a stopped container) would keep all
others waiting for as long as the job may run.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

State = Literal["works", "waits", "alone"]  # it computes; it waits for others; others have no need of it any more
_file: int | None = None  # this process's, open


def path(scratch: Path, rank: int) -> Path:
    return scratch / f"pulse.{rank}"


def start(file: Path) -> None:
    """From now on this process tells of itself. Without this the functions below do nothing."""
    global _file
    _file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)


def beat(state: State = "works") -> None:
    """This process gets on. Costs some microseconds."""
    if _file is not None:
        with contextlib.suppress(OSError):
            os.pwrite(_file, state.encode(), 0)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Within, it is others that have to get on."""
    beat("waits")
    try:
        yield
    finally:
        beat()


def alone() -> None:
    """Nobody waits for this process any more."""
    global _file
    beat("alone")
    if _file is not None:
        os.close(_file)
        _file = None


@dataclass
class Watch:
    """What a launcher sees of a process. Times are of the clock that nobody sets."""

    file: Path
    written: int = 0
    since: float = field(default_factory=time.monotonic)

    def look(self) -> tuple[State, float]:
        """The state, and the seconds since anything was said of it."""
        state: State = "works"  # it is starting
        with contextlib.suppress(OSError):
            written = self.file.stat().st_mtime_ns
            if written != self.written:
                self.written, self.since = written, time.monotonic()
            words = self.file.read_text()
            state = next((each for each in get_args(State) if each == words), state)
        return state, time.monotonic() - self.since
