"""The command line of the scripts. Standard library only: it is checked before the environment is made."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container_train.data.labels import SAMPLE
from local_test.errors import LocalError, Parser, guarded

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "local_test" / "out"
ENGINES = ("auto", "docker", "process")
# multi-model-server refuses ports from 32767 on.
LOW_PORT, HIGH_PORT = 1024, 32766
# What CreateTrainingJob takes.
MAX_HYPERPARAMETERS, MAX_KEY, MAX_VALUE = 100, 256, 2500
_KEY = re.compile(r"[A-Za-z_][\w.-]*\Z")


@dataclass(frozen=True)
class Options:
    """`weights` is a file (a channel), or a word for the hyperparameter, or None where nothing was said."""

    engine: str
    data: str
    weights: Path | str | None
    port: int | None
    out: Path
    hyperparameters: dict[str, str]
    features: Path | None = None  # of frozen layers, from earlier trainings on the same
    open: bool = False  # serve the model with its page afterwards, in a browser

    @property
    def is_sample(self) -> bool:
        return self.data == SAMPLE


def parse(arguments: Sequence[str], program: str = "run.sh") -> Options:
    """Flags of our own, and every other `--name value` as a hyperparameter. Raises LocalError."""
    parser = Parser(
        prog=program,
        description=f"Train, export{', serve and query' if program == 'run.sh' else ' and pack'} on this machine,"
        " over the same directory tree as SageMaker's.",
        epilog="Every other --name value is a hyperparameter: --epochs 2 --lr 0.001 --batch-size 64"
        " (docs/training.md has them all).",
    )
    add_engine(parser)
    add = parser.add_argument
    images = "the built-in photographs (default), or a folder of class folders, in train/ valid/ test/ or not"
    add("--data", default=SAMPLE, metavar="sample|DIR", help=images)
    kinds = "of the backbone: a state_dict file, none, or torchvision's of this name (default: ImageNet's)"
    add("--weights", metavar="FILE|none|NAME", help=kinds)
    add("--port", type=port, metavar="N", help="of the server, on 127.0.0.1 (default: a free one)")
    add("--out", default=str(OUT), metavar="DIR", help="results (default: local_test/out)")
    if program == "run.sh":
        add("--open", action="store_true", help="afterwards, serve the model until Ctrl-C, and try it in a browser")
    known, rest = parser.parse_known_args(arguments)
    out = Path(known.out).absolute()
    if known.data != SAMPLE:
        known.data = str(Path(known.data).absolute())
        data = Path(known.data)
        if not data.exists():
            raise LocalError(f"--data {data}: no such folder: give a folder of class folders, or `{SAMPLE}`", 2)
        if data.resolve().is_relative_to(out.resolve()) or out.resolve().is_relative_to(data.resolve()):
            raise LocalError(f"--data {data} and --out {out} overlap: --out is replaced by every run", 2)
    given, chosen = hyperparameters(rest), weights(known.weights)
    return Options(known.engine, known.data, chosen, known.port, out, given, open=getattr(known, "open", False))


def add_engine(parser: argparse.ArgumentParser) -> None:
    text = "docker: in Docker images; process: the same programs in .venv; auto (default): docker where it answers"
    parser.add_argument("--engine", type=engine, choices=ENGINES, default="auto", help=text)


def engine(text: str) -> str:
    """For argparse."""
    if text == "process" and sys.platform != "linux":
        raise argparse.ArgumentTypeError(f"'process' runs on Linux only, and this is {sys.platform}: take docker")
    return text


def port(text: str) -> int:
    """For argparse."""
    if not (text.isascii() and text.isdigit()) or not LOW_PORT <= int(text) <= HIGH_PORT:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an integer from {LOW_PORT} to {HIGH_PORT}")
    return int(text)


def hyperparameters(words: Sequence[str]) -> dict[str, str]:
    """`--epochs 2 --lr=0.1` -> {"epochs": "2", "lr": "0.1"}; values are strings, as on the platform."""
    result: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise LocalError(f"unexpected argument {word!r}; see --help", 2)
        key, given, value = word[2:].partition("=")
        if not given:
            # A negative number is a value, not the next flag.
            if not rest or (rest[0].startswith("-") and not re.match(r"-[\d.]", rest[0])):
                raise LocalError(f"--{key} has no value: every hyperparameter is --name value", 2)
            value = rest.pop(0)
        if not _KEY.match(key) or len(key) > MAX_KEY:
            raise LocalError(f"--{key} is no name of a hyperparameter", 2)
        if len(value) > MAX_VALUE:
            raise LocalError(f"--{key} has a value of {len(value)} characters: the platform takes {MAX_VALUE}", 2)
        if key in result:
            raise LocalError(f"--{key} is given twice: give it once", 2)
        result[key] = value
    if len(result) > MAX_HYPERPARAMETERS:
        raise LocalError(f"{len(result)} hyperparameters: the platform takes {MAX_HYPERPARAMETERS}", 2)
    return result


def weights(text: str | None) -> Path | str | None:
    """A path that is there, or looks like one, is a file; a plain word is a name for torchvision."""
    if text is None:
        return None
    path = Path(text)
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        raise LocalError(f"--weights {text} is a folder: give the state_dict file in it", 2)
    if "/" in text or path.suffix in {".pth", ".pt", ".bin", ".safetensors"}:
        raise LocalError(f"--weights {text}: no such file: give a state_dict file, `none`, or a torchvision name", 2)
    return text


if __name__ == "__main__":
    # Called by run.sh before the environment is made: a typing error shows in a second, not after minutes.
    sys.exit(guarded(sys.argv[1], lambda: parse(sys.argv[2:], sys.argv[1])))
