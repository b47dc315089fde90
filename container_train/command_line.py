"""The parser of the training's command line: `--name value` pairs become hyperparameters, checked together."""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from container_serve import __version__
from container_train.errors import TrainError, did_you_mean
from container_train.hyperparameters import OPTIONS, Hyperparameters, default_words, defaults
from container_train.model import architectures

ALIASES = {"learning-rate": "lr", "batch": "batch-size", "epoch": "epochs", "model": "arch"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TrainError(message)


def parser() -> argparse.ArgumentParser:
    result = _Parser(
        prog="python -m container_train",
        description="Train an image classifier over an /opt/ml tree (SAGEMAKER_BASE_DIR names another).",
        epilog="example: SAGEMAKER_BASE_DIR=local_test/out/ml python -m container_train --epochs 2 --lr 0.001",
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_flags(result)
    return result


def add_flags(group: "argparse._ActionsContainer", *left_out: str) -> None:
    """A flag for every hyperparameter, whose value is a text that is checked later."""
    for name, option in OPTIONS.items():
        if name not in left_out:
            text = f"{option.help} (default {default_words(name)})".replace("%", "%%")
            metavar = "N" if isinstance(option.default, int | float) else "WORD"
            group.add_argument(f"--{name}", metavar=metavar, help=text)


def parse(arguments: Sequence[str]) -> Hyperparameters:
    """Parse `--name value` pairs as the toolkit passes them; underscores in names are taken for dashes.

    Raises TrainError naming the hyperparameter, its value and what was expected.
    """
    words = [_dashes(word) for word in arguments]
    names = [word.partition("=")[0] for word in words]
    if len(words) > 1 and (asks := [name for name in names if name in ("-h", "--h", "--help", "--version")]):
        raise TrainError(_unknown(asks[:1]))  # argparse would exit with 0, without a model
    known, unknown = parser().parse_known_args(words)
    if unknown:
        raise TrainError(_unknown(unknown))
    if twice := [name for name in OPTIONS if names.count(f"--{name}") > 1]:
        raise TrainError(f"hyperparameter {twice[0]} is given twice (- and _ are the same): give it once")
    given: dict[str, Any] = {}
    for name, (convert, _, _) in OPTIONS.items():
        if (said := getattr(known, name.replace("-", "_"))) is None:
            continue
        text = str(said).strip()
        try:
            given[name] = convert(text)
        except argparse.ArgumentTypeError as error:
            raise TrainError(f"hyperparameter {name} has value {text!r}: expected {error}") from None
    check_together(given)
    return Hyperparameters(**{name.replace("-", "_"): value for name, value in _resolved(given).items()})


def _resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all values: those given, else the recipe's.

    A frozen backbone has no images for the recipe's CutMix, and a training of few epochs no time for all its warm-up.
    """
    values = {**defaults(given.get("recipe", "head")), **given}
    if values["freeze-until"] == "backbone" and "cutmix" not in given:
        values["cutmix"] = 0.0
    if "warmup-epochs" not in given:
        values["warmup-epochs"] = min(values["warmup-epochs"], values["epochs"] / 2)
    return values


def check_together(values: Mapping[str, Any]) -> None:
    """Check valid values by name against each other; the others have their defaults. Raises TrainError."""
    given = {name: OPTIONS[name].parse(str(value).strip()) for name, value in values.items()}
    every = _resolved(given)
    names = ("arch", "weights", "freeze-until", "resize-size", "image-size")
    architectures.check(*(every[name] for name in names))
    if every["cutmix"] and every["freeze-until"] == "backbone":
        raise TrainError(
            f"hyperparameter cutmix has value {every['cutmix']:g}: a frozen backbone leaves no images to cut; use"
            " mixup, or set freeze-until to none"
        )
    if every["warmup-epochs"] >= every["epochs"]:
        raise TrainError(
            f"hyperparameter warmup-epochs has value {every['warmup-epochs']:g}: expected less than the epochs,"
            f" {every['epochs']}"
        )
    if every["accumulate"] > every["batch-size"]:
        raise TrainError(
            f"hyperparameter accumulate has value {every['accumulate']}: expected at most the batch-size,"
            f" {every['batch-size']}"
        )


def device(arguments: Sequence[str]) -> str:
    """Return the hyperparameter `device` alone, without importing torch; `parse` reports errors."""
    words = [word for word in map(_dashes, arguments) if word not in ("-h", "--help")]
    with contextlib.suppress(TrainError):
        return str(parser().parse_known_args(words)[0].device or OPTIONS["device"].default).strip().lower()
    return str(OPTIONS["device"].default)


def _dashes(word: str) -> str:
    name, sign, value = word.partition("=")
    return f"{name.replace('_', '-')}{sign}{value}" if name.startswith("--") else word


def _unknown(words: list[str]) -> str:
    name = words[0].lstrip("-").partition("=")[0]
    value = words[1] if len(words) > 1 and not words[1].startswith("--") else words[0].partition("=")[2]
    if not words[0].startswith("--") and name in OPTIONS:
        return f"unknown word {words[0]!r}: a hyperparameter is given as --{name} VALUE"
    return f"unknown hyperparameter {name} (value {value!r}): {guess(name)}"


def guess(name: str) -> str:
    """Return the words that tell which hyperparameter an unknown name was meant to be, or where all are listed."""
    return did_you_mean(ALIASES.get(name, name), OPTIONS, "docs/training.md lists all hyperparameters")
