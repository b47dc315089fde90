"""The phases of a job: timed, shown in the report, and ended by a stop."""

import contextlib
import time
from collections.abc import Iterator

from container_train.errors import Stopped
from container_train.monitoring.monitor import Monitor
from container_train.signals import StopFlag


class Phases:
    """Runs the phases of a job; `seconds` has the time that each took, in their order."""

    def __init__(self, monitor: Monitor, stop: StopFlag) -> None:
        self.monitor, self.stop = monitor, stop
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def run(
        self, name: str, shown: str = "", *, told: str = "", keeps: bool = False, last: bool = False
    ) -> Iterator[None]:
        """Run one phase, which a stop ends at once: raises Stopped, with `told` as its message.

        A phase that `keeps` its work checks for a stop itself. After the `last` one the job is done: a stop changes
        nothing. The report calls it `shown` where that is given.
        """
        started, words = time.monotonic(), told or f"in {name}; nothing is lost but that phase"
        with self.monitor.phase(shown or name), contextlib.nullcontext() if keeps or last else self.stop.at_once(words):
            yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)
        if self.stop.asked and not last:
            raise Stopped(words)
