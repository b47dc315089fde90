"""The project's own programs, called in this process: what they print, and why one failed."""

import contextlib
import importlib
import io
import json
import shlex
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from local_test.errors import Stopped
from scripts.aws.errors import CloudError
from scripts.console import command

PUSH = "scripts.images.push"  # behind push.sh; the others are scripts/NAME.py


class StepError(CloudError):
    """Why a program failed: its last line."""


class _Tee(io.TextIOBase):
    """Standard error, which also remembers its last line."""

    def __init__(self) -> None:
        self.stream, self.text = sys.stderr, ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-4000:]
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


def call(program: str, *words: object) -> str:
    """Run it, and return its standard output.

    Raises StepError unless it ends with 0, and Stopped where a signal ended it.
    """
    arguments = [str(word) for word in words]
    command.progress(f"$ scripts/{program} {shlex.join(arguments)}")
    # Only now: some take long to import.
    main = importlib.import_module(PUSH if program == "push.sh" else f"scripts.{program.removesuffix('.py')}").main
    output, errors = io.StringIO(), _Tee()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = command.run(program, main, arguments)
    if code > 128:
        raise Stopped(code - 128)
    if code:
        lines = errors.text.strip().splitlines() or [f"{program} ended with {code}"]
        raise StepError(lines[-1])
    return output.getvalue()


def ask(program: str, *words: object) -> Any:
    """Run it with --json, and return the document that it prints."""
    return json.loads(call(program, *words, "--json"))


@contextlib.contextmanager
def at_most(seconds: float) -> Any:
    """Raise Stopped (SIGALRM) when so much time has passed."""

    def expire(number: int, _: FrameType | None) -> NoReturn:
        raise Stopped(number)

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
