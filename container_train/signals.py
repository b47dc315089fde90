"""The platform's wish that the job stop, as a flag that the program looks at between steps."""

import signal


class StopFlag:
    """`asked` turns True on SIGTERM or Ctrl-C; SIGKILL follows 120 s later."""

    def __init__(self) -> None:
        self.asked = False

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, _signal: int, _frame: object) -> None:
        self.asked = True
