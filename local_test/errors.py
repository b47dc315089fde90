"""The ways in which a command ends early, and what is said then; the parser that all commands share."""

import argparse
import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from container_serve import __version__
from container_serve.errors import ServeError
from container_train.errors import TrainError

EMPTY = "is empty: give a value, or leave it out"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LocalError(Exception):
    """An error in one line: what went wrong, where, what to do; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def reason(error: Exception) -> str:
    """Return what went wrong in one line; of an OSError without its number and its file, which the caller names."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return re.sub(r"\s+", " ", re.sub(r"\[Errno -?\d+\] ", "", said)).strip()


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop. Not an Exception, so that nothing swallows it on its way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum, self.code = signum, 128 + signum


class Interrupted(Exception):
    """A signal came while something runs elsewhere; `str()` says what, and the command that takes it up again."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line: argparse would put it below thirty lines that name every flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        for name in (None, "store"):  # of argparse's actions: that of a flag which names none
            self.register("action", name, _Once)
        self.register("type", Path, _path)
        self.given: set[str] = set()
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        self.given.clear()
        return super().parse_known_args(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        raise LocalError(f"{message}; --help lists the flags", 2)


def _path(text: str) -> Path:
    if not text:  # it would be the current folder
        raise argparse.ArgumentTypeError(EMPTY)
    return Path(text)


class _Once(argparse.Action):
    """Stores the value of a flag, and refuses a second one: argparse would silently take the last one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        assert isinstance(parser, Parser)
        if flag and values == "" != self.const:  # it would count as not given
            parser.error(f"{flag} {EMPTY}")
        if flag and self.dest in parser.given:
            parser.error(f"{flag} is given more than once: give it once")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


def guarded(
    program: str,
    work: Callable[[], object],
    explain: Callable[[Exception], Exception] = lambda error: error,
    signals: int = 1,
    *,
    ends: bool = True,
) -> int:
    """Return the exit code of `work`: its own, or that of a signal or an error, which becomes one line.

    `explain` gives the LocalError for a library's error. After so many `signals` the others are ignored: what has been
    started is being stopped, in bounded time. `ends`: the program ends with this call, and ignores them from then on.
    """
    listener = _Listener(signals)
    listener.listen()
    before, sys.unraisablehook = sys.unraisablehook, listener.dropped

    def say(message: object, code: int) -> int:
        print(f"{program}: {message}", file=sys.stderr)
        return code

    try:
        code = work()
        return code if isinstance(code, int) else 0
    except Interrupted as error:
        return say(error, _code(error))
    except KeyboardInterrupt as error:
        return say("stopped, and everything that it had started" if signals == 1 else "interrupted", _code(error))
    except Exception as error:
        match known := explain(error):
            case BrokenPipeError():
                # Whoever read our output has gone (`| head`): nothing is left to say it to.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            case LocalError():
                return say(known, known.code)
            case TrainError() | ServeError():
                return say(known, 2 if type(known) is TrainError else 1)
            case OSError():
                full = known.errno in (errno.ENOSPC, errno.EDQUOT)  # it is where a copy goes to that has no room
                file = (known.filename2 if full else None) or known.filename or ""
                return say(f"{file}: {reason(known)}".lstrip(": "), 1)
        raise
    finally:
        sys.unraisablehook = before
        if ends:
            ignore_signals()
        else:
            listener.restore()


class _Listener:
    """Turns the first `times` signals into Stopped, and ignores all others. Those that were ignored stay so."""

    def __init__(self, times: int) -> None:
        self.left = times

    def listen(self) -> None:
        self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        for signum, handler in self.before.items():
            # A shell starts what it puts into the background with Ctrl-C ignored, nohup without SIGHUP.
            if signum == signal.SIGTERM or handler != signal.SIG_IGN:
                signal.signal(signum, self._take)

    def restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, _frame: FrameType | None) -> None:
        self.left -= 1
        if self.left <= 0:
            ignore_signals()
        raise Stopped(signum)

    def dropped(self, lost: Any) -> None:
        """Take a signal again that came within a destructor or an import, where Python would only print it."""
        if not isinstance(lost.exc_value, Stopped):
            sys.__unraisablehook__(lost)
            return
        self.left += 1
        signal.signal(lost.exc_value.signum, self._take)
        main = threading.main_thread().ident or 0
        threading.Timer(0.05, signal.pthread_kill, [main, lost.exc_value.signum]).start()


def _code(error: BaseException | None) -> int:
    """The exit code for what a signal ended: 143 for SIGTERM, as a shell would say it."""
    if error is None or isinstance(error, Stopped):
        return error.code if error else 128 + signal.SIGINT
    return _code(error.__cause__ or error.__context__)


def ignore_signals() -> None:
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give the error of a write, which names no file, the file's name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
