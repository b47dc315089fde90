"""The platform's request to stop the job, as a flag that the program checks between steps, or while it waits."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

from container_train.errors import Stopped, TrainError

HOST_SECONDS = 300.0  # for another host of the job: its container may start later than this one
SAY_SECONDS = 10.0  # after which the log names the host
POLL_SECONDS = 0.2


class StopFlag:
    """`asked` turns True on SIGTERM or Ctrl-C; SIGKILL follows 120 s later."""

    def __init__(self) -> None:
        self.asked = False
        self._words = ""

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)
        return self

    @contextlib.contextmanager
    def at_once(self, words: str) -> Iterator[None]:
        """Within, a stop raises Stopped(words) wherever the program is, for work that need not be kept.

        Code that is called back from C may swallow the exception: check the flag at the end as well.
        """
        self._words = words
        try:
            if self.asked:
                raise Stopped(words)
            yield
        finally:
            self._words = ""

    def _ask(self, _signal: int, _frame: object) -> None:
        self.asked = True
        if self._words:
            words, self._words = self._words, ""  # once: the end may take its time
            raise Stopped(words)


def wait_for_host(host: str, there: Callable[[], bool], stop: StopFlag, hint: str = "") -> None:
    """Wait until `there()` is true. Raises TrainError after HOST_SECONDS, Stopped if a stop is asked for."""
    begun, told = time.monotonic(), False
    while not there():
        seconds = time.monotonic() - begun
        if stop.asked:
            raise Stopped(f"while host {host} was waited for; nothing is lost")
        if seconds > HOST_SECONDS:
            raise TrainError(
                f"host {host} did not come within {HOST_SECONDS:.0f} s: see whether its container has started, and its"
                f" log{hint}"
            )
        if seconds > SAY_SECONDS and not told:
            told = True
            print(f"waiting for host {host}, for at most {HOST_SECONDS:.0f} s", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
