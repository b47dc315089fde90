"""The common parts of all command lines: their parser, their errors, their end."""

import argparse
import contextlib
import io
import math
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from container_train.hyperparameters import T, read_number
from local_test.errors import Interrupted as Interrupted
from local_test.errors import Parser, guarded, reason
from scripts.aws.errors import CloudError, explain


def parser(program: str, description: str) -> Parser:
    """`description` is the script's docstring, with its examples."""
    return Parser(prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of a flag that takes an integer within these limits, both included."""
    limits = f"from {low}" if high is None else f"from {low} to {high}"
    return _within(int, low, math.inf if high is None else high, f"an integer {limits}")


def _within(kind: type[T], low: float, high: float, what: str) -> Callable[[str], T]:
    def parse(text: str) -> T:
        with contextlib.suppress(ValueError):
            if low <= (value := read_number(text, kind)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} must be {what}")

    return parse


number = _within(float, 0, math.inf, "a number of 0 or more")


def refuse(*complaints: tuple[object, str]) -> None:
    """Raises CloudError with the first complaint whose condition holds: of flags that cannot be given together."""
    for wrong, complaint in complaints:
        if wrong:
            raise CloudError(complaint, 2)


def key_values(items: Sequence[str], source: str) -> dict[str, str]:
    """KEY=VALUE items as a mapping. Raises CloudError, which names their `source`."""
    found: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not (key := key.strip()):
            raise CloudError(f"{source} has value {item!r}: expected KEY=VALUE", 2)
        if key in found:
            raise CloudError(f"{source} has {key} twice: {found[key]!r} and {value!r}; give it once", 2)
        found[key] = value
    return found


def toml(path: Path, flag: str) -> dict[str, Any]:
    """Return the content of a file that `flag` names. Raises CloudError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CloudError(f"{flag} {path}: no such file", 2) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        hint = "" if isinstance(error, OSError) else ': expected TOML, with texts in quotes: region = "eu-central-1"'
        raise CloudError(f"{flag} {path} cannot be read: {reason(error)}{hint}", 2) from None


def run(program: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """The exit code of main(arguments): 0, 1 for what failed, 2 for a wrong call, 130 for Ctrl-C, 143 for SIGTERM."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8, as they are
    given = sys.argv[1:] if arguments is None else arguments
    return guarded(program, lambda: main(given), _explained, 2, ends=arguments is None)


def _explained(error: Exception) -> Exception:
    from boto3.exceptions import Boto3Error  # boto3 takes a fifth of a second, for which --help need not wait
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if isinstance(error, BotoCoreError | ClientError | Boto3Error | ResponseParserError):
        cause = error.__cause__ or error.__context__
        return explain(
            cause if isinstance(error, Boto3Error) and isinstance(cause, ClientError | BotoCoreError) else error
        )
    return error


def progress(message: str) -> None:
    """A line for people; results alone go to standard output."""
    print(message, file=sys.stderr, flush=True)


def tell_loading() -> None:
    """Before the SageMaker SDK is imported for the first time."""
    if "sagemaker" not in sys.modules:
        progress("loading the SageMaker SDK, which takes some seconds")
