"""The hyperparameters of a job, their types, defaults and limits."""

import argparse
import contextlib
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from container_serve import __version__
from container_train.errors import TrainError
from container_train.model import architectures

MAX_PROFILED_STEPS = 100  # a trace holds every operator of every step

# What is not part of a training's identity: a checkpoint fits whatever these say.
NOT_IN_FINGERPRINT = frozenset(
    {"epochs", "patience", "checkpoint-every", "workers", "device", "feature-cache", "debug", "debug-interval", "rule",
     "on-rule", "profile-interval", "torch-profile", "measure", "precision"}
)  # fmt: skip


@dataclass(frozen=True)
class Hyperparameters:
    """Field `batch_size` is the hyperparameter `batch-size`; the metadata of each option stands in OPTIONS."""

    epochs: int
    lr: float
    batch_size: int
    arch: str
    weights: str
    freeze_until: str
    optimizer: str
    weight_decay: float
    momentum: float
    augment: str
    augment_views: int
    patience: int
    checkpoint_every: int
    amp: str
    device: str
    workers: int
    seed: int
    feature_cache: str
    resize_size: int
    image_size: int
    precision: str
    debug: str
    debug_interval: int
    rule: str
    on_rule: str
    profile_interval: int
    torch_profile: str
    measure: str

    def to_dict(self) -> dict[str, Any]:
        return {key.replace("_", "-"): value for key, value in asdict(self).items()}


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`; 64.0 is taken for 64, as the toolkit may write it."""
    limits = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"

    def parse(text: str) -> int:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(limits) from None
        if not number.is_integer() or number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(limits)
        return int(number)

    return parse


def real(low: float, high: float, *, open_low: bool = False) -> Callable[[str], float]:
    """A parser of finite numbers from `low` (excluded where open_low) to `high`."""
    limits = f"a number {'above' if open_low else 'from'} {low:g} {'and at most' if open_low else 'to'} {high:g}"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(limits) from None
        if not math.isfinite(number) or not low <= number <= high or (open_low and number == low):
            raise argparse.ArgumentTypeError(limits)
        return number

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    # The toolkit turns the JSON values true and false into Python's words.
    words = {"true": "on", "false": "off"} if "on" in choices else {}

    def parse(text: str) -> str:
        value = words.get(text.lower(), text.lower())
        if value not in choices:
            raise argparse.ArgumentTypeError("one of " + ", ".join(choices))
        return value

    return parse


def among(*choices: int) -> Callable[[str], int]:
    """A parser of whole numbers of which only some will do."""
    listed = "one of " + ", ".join(map(str, choices))

    def parse(text: str) -> int:
        try:
            number = whole(min(choices), max(choices))(text)
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(listed) from None
        if number not in choices:
            raise argparse.ArgumentTypeError(listed)
        return number

    return parse


def rules(text: str) -> str:
    """Rules of debugger and profiler with parameters, checked but left as they are: the watcher reads them again."""
    from container_train.debugger import KNOWN
    from container_train.monitoring.findings import parse_parameters
    from container_train.profiler.rules import DEFAULTS

    parse_parameters(text, {**KNOWN, **DEFAULTS})
    return text


def steps(text: str) -> str:
    """`none`, or `10:20`: the steps from 10 to before 20."""
    first, _, end = text.partition(":")
    if text != "none" and not (
        first.isdecimal() and end.isdecimal() and int(first) < int(end) <= int(first) + MAX_PROFILED_STEPS
    ):
        raise argparse.ArgumentTypeError(f"none, or first and end step such as 10:20, at most {MAX_PROFILED_STEPS}")
    return text


def architecture(text: str) -> str:
    known = architectures.known()
    if text not in known:
        close = difflib.get_close_matches(text, known, n=3)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise argparse.ArgumentTypeError(f"a torchvision classification architecture such as resnet50{hint}")
    return text


# name: (parser, default, help). The defaults are the classic recipe: ResNet50 with ImageNet weights, its layers frozen,
# a new linear layer, cross entropy, Adam at 0.001, batches of 64.
OPTIONS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "epochs": (whole(1, 10_000), 10, "passes over the training images"),
    "lr": (real(0, 10, open_low=True), 0.001, "learning rate; unfrozen layers want about 0.0001"),
    "batch-size": (whole(1, 65_536), 64, "images per step"),
    "arch": (architecture, "resnet50", "any torchvision classification architecture"),
    "weights": (str, "DEFAULT", "DEFAULT (ImageNet), none, or a torchvision name such as IMAGENET1K_V1"),
    "freeze-until": (
        str,
        "backbone",
        "backbone (all but the new layer), none, or the last module to freeze: layer3",
    ),
    "optimizer": (one_of("adam", "adamw", "sgd"), "adam", "adam, adamw or sgd"),
    "weight-decay": (real(0, 1), 0.0, "weight decay"),
    "momentum": (real(0, 1), 0.9, "momentum, for sgd"),
    "augment": (
        one_of("none", "flip", "crop"),
        "none",
        "none, flip (mirror), crop (random resized crop and mirror)",
    ),
    "augment-views": (whole(0, 1000), 4, "views of an image that its frozen layers see; 0: a new one in every epoch"),
    "patience": (whole(0), 0, "stop after this many epochs without a better validation accuracy; 0: never"),
    "checkpoint-every": (whole(0), 0, "steps from one checkpoint to the next within an epoch; 0: one after each epoch"),
    "amp": (
        one_of("auto", "on", "off"),
        "auto",
        "mixed precision; auto: on a GPU, or a CPU with AMX; off: float32, on a GPU without TF32",
    ),
    "device": (
        one_of("auto", "cpu", "cuda"),
        "auto",
        "auto takes a usable GPU; one that cannot be used is an error",
    ),
    "workers": (whole(-1, 256), -1, "processes that decode images; -1: one per core, at most 12"),
    "seed": (whole(0, 2**31 - 1), 0, "seed of everything random"),
    "feature-cache": (
        one_of("auto", "on", "off"),
        "auto",
        "run frozen layers once per image; auto: if it fits",
    ),
    "resize-size": (
        whole(0, 4096),
        0,
        "shorter side before the crop, in pixels; 0: as the weights were trained",
    ),
    "image-size": (whole(0, 4096), 0, "side of the crop, in pixels; 0: as the weights were trained"),
    "precision": (
        one_of("auto", "fp32", "int8"),
        "auto",
        "of the served graph; auto: int8 if it is as accurate on validation, else fp32",
    ),
    "debug": (one_of("on", "off"), "on", "save tensors, and judge them by the debugger's rules"),
    "debug-interval": (
        whole(0, 1_000_000),
        0,
        "steps from one saved step to the next; 0: chosen from the steps per epoch",
    ),
    "rule": (rules, "none", "parameters of rules: overfit:patience=3;vanishing_gradient:threshold=1e-6"),
    "on-rule": (one_of("warn", "stop"), "warn", "what happens when a rule fires: warn, or stop the training"),
    "profile-interval": (
        among(0, 100, 200, 500, 1000, 5000, 60_000),
        500,
        "ms between samples of the system: 100, 200, 500, 1000, 5000 or 60000; 0: none",
    ),
    "torch-profile": (steps, "none", "steps to trace operator by operator: 10:20"),
    "measure": (
        one_of("full", "none"),
        "full",
        "full: export, and evaluate with the serving code; none: neither, for trials of a search",
    ),
}


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
    for name, (_, default, text) in OPTIONS.items():
        result.add_argument(f"--{name}", default=str(default), metavar="V", help=f"{text} (default {default})")
    return result


def parse(arguments: Sequence[str]) -> Hyperparameters:
    """Parse `--name value` pairs as the toolkit passes them; underscores in names are taken for dashes.

    Raises TrainError naming the hyperparameter, its value and what was expected.
    """
    words = [_dashes(word) for word in arguments]
    asks = {word.partition("=")[0] for word in words} & {"-h", "--h", "--help", "--version"}
    if asks and len(words) > 1:  # a hyperparameter of a job, which would end well without a model
        raise TrainError(_unknown([next(word for word in words if word.partition("=")[0] in asks)]))
    known, unknown = parser().parse_known_args(words)
    if unknown:
        raise TrainError(_unknown(unknown))
    values: dict[str, Any] = {}
    for field in fields(Hyperparameters):
        name = field.name.replace("_", "-")
        text = str(getattr(known, field.name)).strip()
        try:
            values[field.name] = OPTIONS[name][0](text)
        except argparse.ArgumentTypeError as error:
            raise TrainError(f"hyperparameter {name} has value {text!r}: expected {error}") from None
    hp = Hyperparameters(**values)
    check_together(hp.to_dict())
    return hp


def check_together(values: Mapping[str, Any]) -> None:
    """Values by name, each of them right, the others as by default. Raises TrainError where they do not go together."""
    names = ("arch", "weights", "freeze-until", "resize-size", "image-size")
    architectures.check(*(OPTIONS[name][0](str(values.get(name, OPTIONS[name][1])).strip()) for name in names))


def device(arguments: Sequence[str]) -> str:
    """Return the hyperparameter `device` alone, without importing torch; what is wrong is for `parse` to tell."""
    words = [word for word in map(_dashes, arguments) if word not in ("-h", "--help")]
    with contextlib.suppress(TrainError):
        return str(parser().parse_known_args(words)[0].device).strip().lower()
    return str(OPTIONS["device"][1])


def _dashes(word: str) -> str:
    name, sign, value = word.partition("=")
    return f"{name.replace('_', '-')}{sign}{value}" if name.startswith("--") else word


def _unknown(words: list[str]) -> str:
    name = words[0].lstrip("-").partition("=")[0]
    value = words[1] if len(words) > 1 and not words[1].startswith("--") else words[0].partition("=")[2]
    close = difflib.get_close_matches(name, OPTIONS, n=1)
    aliases = {"learning-rate": "lr", "batch": "batch-size", "epoch": "epochs", "model": "arch"}
    guess = aliases.get(name) or (close[0] if close else None)
    hint = f"did you mean {guess}? " if guess else ""
    return f"unknown hyperparameter {name} (value {value!r}): {hint}known are {', '.join(OPTIONS)}"
