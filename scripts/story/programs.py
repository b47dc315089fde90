"""The project's own programs, called in this process."""

import contextlib
import importlib
import io
import json
import shlex
import signal
from collections.abc import Iterator
from typing import Any

from local_test.errors import Stopped
from scripts.aws.errors import CloudError
from scripts.console.command import progress

PUSH = "scripts.images.push"  # behind push.sh; the others are scripts/NAME.py
LONGEST = 1000  # characters of the output of a program that failed


class StepError(CloudError):
    """The reason why a step failed."""


def call(program: str, *words: object) -> str:
    """Run it, and return its standard output. Raises what it raises, and StepError unless it ends with 0."""
    arguments = [str(word) for word in words]
    progress(f"$ scripts/{program} {shlex.join(arguments)}")
    # Only now: some take long to import.
    module = importlib.import_module(PUSH if program == "push.sh" else f"scripts.{program.removesuffix('.py')}")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = module.main(arguments)
    if code:
        raise StepError(f"{program} ended with {code}: {' '.join(output.getvalue().split())[-LONGEST:]}")
    return output.getvalue()


def ask(program: str, *words: object) -> Any:
    """Run it with --json, and return the document that it prints."""
    return json.loads(call(program, *words, "--json"))


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Stopped when so much time has passed."""

    def expire(number: int, _: object) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
