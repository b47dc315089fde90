"""The inputs of a job: the images' channels, the weights, and the hyperparameters, as a user names them."""

import argparse
import contextlib
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from container_serve import scratch
from container_train import command_line, hyperparameters
from container_train.data import sample, splits
from container_train.data.labels import SAMPLE as SAMPLE
from container_train.data.labels import SPLITS
from container_train.data.splits import ClassFiles
from container_train.errors import TrainError
from local_test import options
from local_test.errors import LocalError, naming
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.console.command import key_values, progress
from scripts.dataset import check as checking
from scripts.dataset.source import Source
from scripts.jobs.training_jobs import WEIGHTS as WEIGHTS
from scripts.s3 import storage
from scripts.s3.objects import digest

_DATA = "give s3://BUCKET/PREFIX, a folder of class folders, or sample"


@dataclass(frozen=True)
class Data:
    """Images: in S3 already (`splits` is None), or in a folder, on their way to `prefix`."""

    prefix: S3Uri
    splits: Mapping[str, ClassFiles] | None

    def channels(self) -> dict[str, str]:
        """With a slash at the end: S3 takes a prefix letter by letter, and `train` is that of `training` too."""
        return {split: f"{self.prefix / split}/" for split in SPLITS}

    def requests(self, settings: Settings) -> list[Request]:
        return [] if self.splits is None else storage.requests(storage.items(self.splits), self.prefix, settings)


def check(text: str | None) -> None:
    """Check --data, before anything that takes seconds. Raises CloudError."""
    if not text:
        raise CloudError(f"no --data: {_DATA}", 2)
    if text != SAMPLE and not text.startswith("s3://") and not Path(text).exists():
        raise CloudError(f"--data {text} is not there: {_DATA}", 2)


@contextlib.contextmanager
def images(text: str) -> Iterator[Mapping[str, ClassFiles]]:
    """The splits of a folder, or of the sample, whose images are made for as long as this is open."""
    with scratch.folder() as made:
        if text == SAMPLE:
            source = made / SAMPLE
            with naming(source):
                sample.write(source)
        else:
            source = Path(text)
        yield checking.readable(splits.plan(source), progress)


@contextlib.contextmanager
def data(text: str, upload_to: str | None, settings: Settings) -> Iterator[Data]:
    """--data S3, DIR or `sample`. Raises CloudError or DataError."""
    if text.startswith("s3://"):
        if upload_to:
            raise CloudError(f"--upload-to is for a folder, and --data {text} is in S3 already", 2)
        yield Data(S3Uri.parse(text, "--data"), None)
        return
    prefix = S3Uri.parse(upload_to, "--upload-to") if upload_to else settings.home() / "data" / Source(text).name
    with images(text) as splits:
        yield Data(prefix, splits)


@dataclass(frozen=True)
class Weights:
    """One of: a URI in S3, a file here, a word for the hyperparameter; or nothing that was said."""

    uri: S3Uri | None = None
    file: Path | None = None
    word: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> "Weights":
        if text is not None and text.startswith("s3://"):
            return cls(uri=S3Uri.parse(text, "--weights"))
        found = options.weights(text)
        return cls(file=found) if isinstance(found, Path) else cls(word=found)

    def place(self, settings: Settings) -> S3Uri | None:
        """Return its place for the channel. The hash in a file's place keeps later calls from changing it."""
        if self.file is None:
            return self.uri
        return settings.home() / WEIGHTS / digest(self.file)[:16] / self.file.name


def flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every hyperparameter; --weights is more than one, and made elsewhere."""
    group = parser.add_argument_group("hyperparameters", "of the training program (docs/training.md)")
    command_line.add_flags(group, WEIGHTS)


def given(known: argparse.Namespace, word: str | None) -> dict[str, str]:
    """The hyperparameters of a call, checked as training checks them, as strings. Raises CloudError."""
    values: dict[str, str] = {}
    for name, (parse, _, _) in hyperparameters.OPTIONS.items():
        text = word if name == WEIGHTS else getattr(known, name.replace("-", "_"))
        if text is None:
            continue
        try:
            parse(text.strip())
        except argparse.ArgumentTypeError as error:
            raise CloudError(f"hyperparameter {name} has value {text!r}: expected {error}", 2) from None
        values[name] = text.strip()
    return values


def check_unknown(known: argparse.Namespace, rest: Sequence[str]) -> None:
    """Raises CloudError for words that are neither flags nor hyperparameters."""
    flags = [name.replace("_", "-") for name in vars(known)]
    try:
        unknown = options.hyperparameters(rest)
        for name in unknown:
            # tune.py sets some of train.py's flags, and has not got them.
            if close := difflib.get_close_matches(name, [flag for flag in flags if flag != name], 1, 0.8):
                raise CloudError(f"unknown flag --{name}: did you mean --{close[0]}?", 2)
        if unknown:
            # Raises what training would: which there are, and what was probably meant.
            command_line.parse([word for key, value in unknown.items() for word in (f"--{key}", value)])
    except CloudError:
        raise
    except (LocalError, TrainError) as error:
        raise CloudError(f"{error}; --help lists the other flags", 2) from None


def check_together(values: Mapping[str, object]) -> None:
    """Hyperparameters that are right one by one. Raises TrainError or CloudError where they do not go together."""
    command_line.check_together(values)
    until = str(values.get("freeze-until", ""))
    # A module within another: only torch knows those. Where the scripts run without it, the training tells.
    if "." in until and importlib.util.find_spec("torchvision"):
        from container_train.model.builder import freezable

        arch = str(values.get("arch", hyperparameters.OPTIONS["arch"][1]))
        names = freezable(arch)
        if until not in names:
            close = difflib.get_close_matches(until, names, n=3) or names[:5]
            has = f"{arch} has no such module before its last layer, but {', '.join(close)}"
            raise CloudError(f"hyperparameter freeze-until has value {until!r}: {has}", 2)


def dashes(arguments: Sequence[str]) -> list[str]:
    """`--batch_size` is taken for `--batch-size`, as in a job's hyperparameters."""
    made = []
    for argument in arguments:
        flag, given, value = argument.partition("=")
        made.append((flag.replace("_", "-") if flag.startswith("--") else flag) + given + value)
    return made


def environment(image: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """The container's, of --environment KEY=VALUE; the training program writes the image's name into the artifact."""
    return {"BYOC_IMAGE": image, **key_values(pairs or (), "--environment")}
