"""The processes of a host: started, watched, ended; how each ended, in words."""

import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container_train.distributed import pulse
from container_train.distributed.layout import Layout
from container_train.distributed.verdict import STOPPED

KILL_SECONDS = 10.0
STILL_HINT = "is the storage of its channels out of reach? (BYOC_STILL_SECONDS allows more)"


@dataclass
class Ranks:
    """Those of this host."""

    layout: Layout
    scratch: Path
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    watched: dict[int, pulse.Watch] = field(default_factory=dict)

    def start(self, arguments: Sequence[str]) -> None:
        for local_rank in range(self.layout.processes):
            environment = self.layout.environment(local_rank, self.scratch)
            command = [sys.executable, str(Path(__file__).parents[1] / "__main__.py"), *arguments]
            rank = int(environment["RANK"])
            self.running[rank] = subprocess.Popen(command, env=environment)
            self.watched[rank] = pulse.Watch(pulse.path(self.scratch, rank))

    def ended(self) -> list[tuple[int, int, str]]:
        """Rank, exit code and line of those that have ended since the last call."""
        found = []
        for rank, process in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[rank]
                if code == -signal.SIGTERM:
                    found.append((rank, STOPPED, "stopped before the training began; nothing is lost"))
                else:
                    found.append((rank, code, self._line(rank, code)))
        return found

    def still(self, limit: float) -> list[tuple[int, int, str]]:
        """The same of those that live, but get no further, though it is not others that they wait for."""
        found = []
        for rank in self.running:
            state, seconds = self.watched[rank].look()
            if state == "works" and seconds > limit:
                found.append((rank, 1, f"{self._who(rank)} has got no further for {limit:.0f} s: {STILL_HINT}"))
        return found

    def quiet(self) -> float:
        """For how many seconds none of them, working or waiting, has got any further."""
        looks = [self.watched[rank].look() for rank in self.running]
        return min((0.0 if state == "alone" else seconds for state, seconds in looks), default=math.inf)

    def _line(self, rank: int, code: int) -> str:
        with contextlib.suppress(OSError):
            words = failure_file(self.scratch, rank).read_text().splitlines()[0]
            return words if code == STOPPED else f"{words} ({self._who(rank)})"
        if code >= 0:
            return f"{self._who(rank)} ended with code {code} without a word: see its log" if code else ""
        name = signal.Signals(-code).name
        hint = (
            ": mostly for want of memory: use a larger instance, or a smaller batch-size" if name == "SIGKILL" else ""
        )
        return f"{self._who(rank)} was killed by {name}{hint}"

    def _who(self, rank: int) -> str:
        return f"process {rank} of {self.layout.size}, host {self.layout.here}"

    def tell_to_stop(self) -> None:
        for process in self.running.values():
            process.terminate()

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it, in a file system maybe
                process.wait(KILL_SECONDS)


def failure_file(scratch: Path, rank: int) -> Path:
    return scratch / f"failure.{rank}"
