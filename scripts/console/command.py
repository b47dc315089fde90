"""The common parts of all command lines: their parser, their errors, their end."""

import argparse
import io
import sys
from collections.abc import Callable, Sequence

from local_test.errors import Interrupted as Interrupted
from local_test.errors import Parser, guarded
from scripts.aws.errors import CloudError, explain


def parser(program: str, description: str) -> Parser:
    """`description` is the script's docstring, with its examples."""
    return Parser(prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of a flag that takes an integer within these limits, both included."""
    limits = f"from {low}" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text!r} must be an integer {limits}")
        return int(text)

    return parse


def number(text: str) -> float:
    """Return the value of a flag that takes a number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of 0 or more")
    return value


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
