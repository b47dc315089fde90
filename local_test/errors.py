"""The ways in which a local run ends early, and what is said then."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LocalError(Exception):
    """What went wrong, where, and what to do, in one line; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Stopped(BaseException):
    """A signal asked the run to stop. Not an Exception, so that nothing swallows it on its way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum


def guarded(program: str, work: Callable[[], object]) -> int:
    """The exit code of `work`, with signals and errors turned into one line each."""
    for signum in SIGNALS:
        signal.signal(signum, _stop)

    def say(message: object, code: int) -> int:
        print(f"\n{program}: {message}", file=sys.stderr)
        return code

    try:
        work()
        return 0
    except LocalError as error:
        return say(error, error.code)
    except Stopped as stopped:
        return say("stopped, and everything that it had started", stopped.code)
    except OSError as error:
        return say(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
    except Exception as error:
        # Not imported above: signals are to be heard before seconds go into imports.
        from container_train.errors import TrainError

        if not isinstance(error, TrainError):
            raise
        return say(error, 2)


@contextlib.contextmanager
def ignoring_signals() -> Iterator[None]:
    """Without Ctrl-C and SIGTERM, for work in bounded time that is not to be interrupted."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(signum: int, _frame: FrameType | None) -> None:
    # Once: what is running is being stopped, in bounded time, and is not to be interrupted in that.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signum)
