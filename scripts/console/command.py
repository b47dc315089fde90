"""What all the scripts' command lines have in common: their parser, their errors, their end."""

import argparse
import errno
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Sequence
from typing import NoReturn

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from container_serve import __version__
from container_train.errors import DataError, TrainError
from local_test.errors import LocalError
from scripts.aws.errors import CloudError, explain, one_line


class Interrupted(Exception):
    """Ctrl-C while something goes on elsewhere; `str()` says what, and the command that takes it up again."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line: argparse would put it below thirty lines that name every flag."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


def parser(program: str, description: str) -> Parser:
    """`description` is the script's docstring, with its examples."""
    made = Parser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return made


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of a flag that takes an integer within these limits, both included."""
    limits = f"from {low}" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text!r} must be an integer {limits}")
        return int(text)

    return parse


def key_values(items: Sequence[str], source: str) -> dict[str, str]:
    """KEY=VALUE items as a mapping. Raises CloudError, which names their `source`."""
    found = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            raise CloudError(f"{source} has value {item!r}: expected KEY=VALUE", 2)
        found[key.strip()] = value
    return found


def run(program: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """The exit code of main(arguments): 0, 1 for what failed, 2 for a wrong call, 130 for Ctrl-C."""
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8, as they are

    def say(message: str) -> None:
        print(f"{program}: {message}", file=sys.stderr)

    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except Interrupted as error:
        say(str(error))
        return 130
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except LocalError as error:
        say(str(error))
        return error.code
    except TrainError as error:
        say(str(error))
        return 1 if isinstance(error, DataError) else 2
    except (BotoCoreError, ClientError, Boto3Error, ResponseParserError) as error:
        cause = error.__cause__ or error.__context__
        known = cause if isinstance(error, Boto3Error) and isinstance(cause, ClientError | BotoCoreError) else error
        say(str(explain(known)))
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is left to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # it is where a copy goes to that has no room
        file = (error.filename2 if full else None) or error.filename or ""
        say(one_line(f"{file}: {error.strerror or error}").lstrip(": "))
        return 1


def _terminated(_signal: int, frame: types.FrameType | None) -> None:
    """A terminated script cleans up as an interrupted one does. Where a script calls it with `&`, Ctrl-C is ignored."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def progress(message: str) -> None:
    """A line for people; results alone go to standard output."""
    print(message, file=sys.stderr, flush=True)


def tell_loading() -> None:
    """Before the SageMaker SDK is imported for the first time."""
    if "sagemaker" not in sys.modules:
        progress("loading the SageMaker SDK, which takes some seconds")
