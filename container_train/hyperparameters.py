"""The hyperparameters of a job: each field has its parser, default and help text; command_line.py parses them all."""

import argparse
import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from container_train.errors import did_you_mean
from container_train.model import architectures
from container_train.training.recipes import RECIPES

MAX_PROFILED_STEPS = 100  # a trace holds every operator of every step
WRITTEN = {int: r"-?[0-9]+(\.0+)?", float: r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"}
T = TypeVar("T", int, float)

# A checkpoint fits whatever these say; all others are part of its identity.
NOT_IN_FINGERPRINT = frozenset(
    {"epochs", "patience", "checkpoint-every", "compile", "workers", "device", "feature-cache", "debug",
     "debug-interval", "rule", "on-rule", "profile-interval", "torch-profile", "measure", "precision", "track"}
)  # fmt: skip


def read_number(text: str, kind: type[T]) -> T:
    """Return a finite number as people write it; 64.0 is an integer, since the toolkit may write it. Or ValueError."""
    if not re.fullmatch(WRITTEN[kind], text) or not math.isfinite(value := float(text)):
        raise ValueError(text)
    return kind(value)


def number(kind: type[T], low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], Any]:
    """Return a parser of numbers from `low` (excluded if `above`) to `high`."""
    limits = f"{'an integer' if kind is int else 'a number'} {'above' if above else 'from'} {low:g}"
    if high < math.inf:
        limits += f" {'and at most' if above else 'to'} {int(high) if kind is int else high}"

    def parse(text: str) -> T:
        with contextlib.suppress(ValueError):
            value = read_number(text, kind)
            if low <= value <= high and not (above and value == low):
                return value
        raise argparse.ArgumentTypeError(limits)

    return parse


def one_of(*choices: str | int) -> Callable[[str], Any]:
    """Return a parser of a few words or integers; the toolkit turns the JSON values true and false into Python's."""
    values = {str(choice): choice for choice in choices}
    spelled = {"true": "on", "false": "off"} if "on" in choices else {}

    def parse(text: str) -> str | int:
        word = text.lower().removesuffix(".0")
        word = spelled.get(word, word)
        if word not in values:
            raise argparse.ArgumentTypeError("one of " + ", ".join(values))
        return values[word]

    return parse


def lowered(text: str) -> str:
    """Return `none` or `backbone` however it is written, as Python's None is; any other text as it is."""
    return text.lower() if text.lower() in ("none", "backbone") else text


def rules(text: str) -> str:
    """Check rules of debugger and profiler with parameters; the watcher parses them again."""
    from container_train.debugger import KNOWN
    from container_train.monitoring.findings import parse_parameters
    from container_train.profiler.rules import DEFAULTS

    parse_parameters(lowered(text), {**KNOWN, **DEFAULTS})
    return lowered(text)


def steps(text: str) -> str:
    """Check `none`, or `10:20`: the steps from 10 to before 20."""
    found = re.fullmatch("([0-9]+):([0-9]+)", text)
    if lowered(text) != "none" and not (found and 0 < int(found[2]) - int(found[1]) <= MAX_PROFILED_STEPS):
        raise argparse.ArgumentTypeError(f"none, or first and end step such as 10:20, at most {MAX_PROFILED_STEPS}")
    return lowered(text)


def architecture(text: str) -> str:
    known = architectures.known()
    if text not in known and not architectures.is_timm(text):
        hint = did_you_mean(text, known, "docs/training.md names some")
        raise argparse.ArgumentTypeError(
            f"a classification architecture of torchvision such as resnet50, or timm/NAME: {hint}"
        )
    return text


class Option(NamedTuple):
    """`parse` raises ArgumentTypeError, whose message says what is expected."""

    parse: Callable[[str], Any]
    default: Any
    help: str


def option(parse: Callable[[str], Any], default: Any, text: str) -> Any:
    return field(default=default, metadata={"option": Option(parse, default, text)})


ON_OFF = one_of("on", "off")
AUTO_ON_OFF = one_of("auto", "on", "off")


@dataclass(frozen=True)
class Hyperparameters:
    """Field `batch_size` is the hyperparameter `batch-size`.

    The defaults are the recipe `head`: ResNet50 with ImageNet weights, its layers frozen, a new linear layer, cross
    entropy, Adam at 0.001, batches of 64. `defaults` returns those of another recipe.
    """

    recipe: str = option(
        one_of(*RECIPES),
        "head",
        "the other defaults: head (a new layer on frozen ones), views (the same on more views), finetune (all layers)",
    )
    epochs: int = option(number(int, 1, 10_000), 10, "passes over the training images")
    head_epochs: int = option(
        number(int, 0, 10_000), 0, "epochs before these that train the new layer alone, on cached features"
    )
    lr: float = option(
        number(float, 0, 10, above=True), 0.001, "learning rate; if all layers are trained with one rate, about 0.0001"
    )
    head_lr: float = option(number(float, 0, 10, above=True), 0.003, "learning rate of head-epochs")
    backbone_lr: float = option(
        number(float, 0, 10), 0.0, "learning rate of the last stage before the new layer; 0: lr times layer-decay"
    )
    layer_decay: float = option(
        number(float, 0, 1, above=True), 1.0, "factor on the learning rate from one stage of layers to that before it"
    )
    lr_schedule: str = option(one_of("constant", "cosine"), "constant", "constant, or cosine (falls to 0 at the end)")
    warmup_epochs: float = option(number(float, 0, 1000), 0.0, "epochs in which the learning rate rises from 0 to lr")
    batch_size: int = option(number(int, 1, 65_536), 64, "images per step")
    arch: str = option(
        architecture, "resnet50", "any classification architecture of torchvision, or of timm: timm/convnext_tiny"
    )
    weights: str = option(lowered, "DEFAULT", "DEFAULT (ImageNet), none, or a torchvision name such as IMAGENET1K_V1")
    freeze_until: str = option(
        lowered, "backbone", "backbone (all but the new layer), none, or the last module to freeze: layer3"
    )
    optimizer: str = option(one_of("adam", "adamw", "sgd"), "adam", "adam, adamw or sgd")
    weight_decay: float = option(number(float, 0, 1), 0.0, "weight decay")
    norm_decay: str = option(ON_OFF, "on", "weight decay also of biases and normalisation layers")
    momentum: float = option(number(float, 0, 1), 0.9, "momentum, for sgd")
    clip: float = option(number(float, 0), 0.0, "largest norm of the gradients; larger ones are scaled down; 0: none")
    accumulate: int = option(
        number(int, 1, 1024), 1, "parts in which a batch passes through the network, to save memory"
    )
    batch_norm: str = option(
        one_of("train", "frozen"), "train", "statistics of unfrozen batch norm layers: train, or frozen as they are"
    )
    ema: float = option(
        number(float, 0, 0.99999), 0.0, "decay of the moving average of the weights, which is kept; 0: none"
    )
    label_smoothing: float = option(number(float, 0, 0.99), 0.0, "probability taken from the true class for all others")
    mixup: float = option(number(float, 0, 100), 0.0, "alpha of MixUp (blends pairs of images); 0: off")
    cutmix: float = option(
        number(float, 0, 100), 0.0, "alpha of CutMix (pastes a part of another image); 0: off; both: one at random"
    )
    class_weights: str = option(
        one_of("none", "balanced"), "none", "weights of the classes in the loss; balanced: all classes count alike"
    )
    select_by: str = option(
        one_of("accuracy", "macro-f1"), "accuracy", "what makes an epoch the best: accuracy or macro-f1 on validation"
    )
    augment: str = option(
        one_of("none", "flip", "crop", "trivial"),
        "none",
        "none, flip (mirror), crop (random resized crop and mirror), trivial (crop and TrivialAugmentWide)",
    )
    crop_scale: float = option(
        number(float, 0, 1, above=True), 0.08, "smallest share of the image that a random crop takes"
    )
    random_erasing: float = option(number(float, 0, 1), 0.0, "probability that a rectangle of an image is erased")
    augment_views: int = option(
        number(int, 0, 1000), 4, "views per image for frozen layers, at most one per epoch; 0: new ones in every epoch"
    )
    patience: int = option(number(int, 0), 0, "stop after this many epochs without a better one (select-by); 0: never")
    checkpoint_every: int = option(
        number(int, 0), 0, "steps from one checkpoint to the next within an epoch; 0: one after each epoch"
    )
    amp: str = option(
        AUTO_ON_OFF, "auto", "mixed precision; auto: on a GPU, or a CPU with AMX; off: float32, on a GPU without TF32"
    )
    compile: str = option(
        ON_OFF, "off", "torch.compile of what is trained: faster steps after a minute; needs a C compiler"
    )
    device: str = option(
        one_of("auto", "cpu", "cuda"), "auto", "auto takes a usable GPU; one that cannot be used is an error"
    )
    workers: int = option(number(int, -1, 256), -1, "processes that decode images; -1: one per core, at most 12")
    seed: int = option(number(int, 0, 2**31 - 1), 0, "seed of everything random")
    feature_cache: str = option(AUTO_ON_OFF, "auto", "run frozen layers once per image; auto: if it fits")
    resize_size: int = option(
        number(int, 0, 4096), 0, "shorter side before the crop, in pixels; 0: as the weights were trained"
    )
    image_size: int = option(number(int, 0, 4096), 0, "side of the crop, in pixels; 0: as the weights were trained")
    precision: str = option(
        one_of("auto", "fp32", "int8"),
        "auto",
        "of the served graph; auto: int8 if 200 validation images or more show that it is as accurate, else fp32",
    )
    debug: str = option(ON_OFF, "on", "save tensors, and judge them by the debugger's rules")
    debug_interval: int = option(
        number(int, 0, 1_000_000), 0, "steps from one saved step to the next; 0: chosen from the steps per epoch"
    )
    rule: str = option(rules, "none", "parameters of rules: overfit:patience=3;vanishing_gradient:threshold=1e-6")
    on_rule: str = option(one_of("warn", "stop"), "warn", "what happens when a rule fires: warn, or stop the training")
    profile_interval: int = option(
        one_of(0, 100, 200, 500, 1000, 5000, 60_000),
        500,
        "ms between samples of the system: 100, 200, 500, 1000, 5000 or 60000; 0: none",
    )
    torch_profile: str = option(steps, "none", "steps to trace operator by operator: 10:20")
    track: str = option(
        one_of("none", "tensorboard", "mlflow"), "none", "where the epochs' metrics go, too: tensorboard or mlflow"
    )
    measure: str = option(
        one_of("full", "none"),
        "full",
        "full: export, and evaluate with the serving code; none: neither, for trials of a search",
    )

    def to_dict(self) -> dict[str, Any]:
        return {key.replace("_", "-"): value for key, value in asdict(self).items()}

    def identity(self) -> dict[str, Any]:
        """Return the values that a checkpoint has to have been made with; a schedule depends on the epochs, too."""
        incidental = NOT_IN_FINGERPRINT - ({"epochs"} if self.lr_schedule != "constant" else set())
        return {name: value for name, value in self.to_dict().items() if name not in incidental}


OPTIONS: dict[str, Option] = {f.name.replace("_", "-"): f.metadata["option"] for f in fields(Hyperparameters)}


def defaults(recipe: str) -> dict[str, Any]:
    """Return the default of every hyperparameter in a recipe."""
    return {name: RECIPES[recipe].get(name, option.default) for name, option in OPTIONS.items()} | {"recipe": recipe}


def default_words(name: str) -> str:
    """Return the default for people: `10; finetune: 25`."""
    others = [f"{recipe}: {values[name]}" for recipe, values in RECIPES.items() if name in values]
    return "; ".join([str(OPTIONS[name].default), *others])
