"""The platform's request to stop the job, as a flag that the program checks between steps."""

import contextlib
import signal
from collections.abc import Iterator

from container_train.errors import Stopped


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
