"""The backbone's weights, decided before training starts."""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from container_train.command_line import parse
from container_train.model.architectures import weights_url
from local_test.errors import LocalError, reason

PROBE_SECONDS = 5


@dataclass(frozen=True)
class Weights:
    """`file` goes into the channel `weights`, `hyperparameter` is the word for it; `note` is for people."""

    file: Path | None
    hyperparameter: str | None
    note: str = ""


def url_of(hyperparameters: Mapping[str, str]) -> str | None:
    """Return the address of the weights that training would fetch, None where it would fetch none.

    Raises TrainError for hyperparameters that training would refuse.
    """
    settings = parse([word for key, value in hyperparameters.items() for word in (f"--{key}", value)])
    return weights_url(settings.arch, settings.weights)


def hub_file(url: str) -> Path:
    """The file in which torch.hub keeps this URL (torch.hub.get_dir, without importing torch), or timm's hub does."""
    repository, of_timm, name = urlsplit(url).path.strip("/").partition("/resolve/main/")
    if of_timm:
        from huggingface_hub import try_to_load_from_cache

        return Path(str(try_to_load_from_cache(repository, name)))  # "None" is no file
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    return home / "hub" / "checkpoints" / urlsplit(url).path.rpartition("/")[2]


def unreachable(url: str) -> str:
    """The reason why `url` cannot be fetched now, empty if it can. urllib asks, as torch.hub does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)  # urllib's, a text or an exception
        return reason(cause) if isinstance(cause, Exception) else str(cause)


def choose(asked: Path | str | None, url: str | None, *, is_sample: bool, in_container: bool) -> Weights:
    """`url` is the address of the published weights that were asked for, None where none are wanted.

    Only the sample, and only when nothing was asked for, falls back to random weights: else LocalError.
    """
    if isinstance(asked, Path):
        return Weights(asked, None)
    if url is None:
        return Weights(None, asked)
    if (cached := hub_file(url)).is_file():
        # A container does not see this machine's cache; the channel is how weights get into one.
        return Weights(cached, None) if in_container else Weights(None, asked)
    if not (reason := unreachable(url)):
        return Weights(None, asked)
    if not is_sample or asked is not None:
        remedy = "give a state_dict file with --weights FILE, or train from random weights with --weights none"
        raise LocalError(f"the weights {url} cannot be fetched ({reason}): {remedy}")
    return Weights(
        None,
        "none",
        f"NO IMAGENET WEIGHTS: {urlsplit(url).hostname} cannot be reached ({reason}), so the sample is trained on a"
        " backbone of RANDOM weights. The accuracy says nothing about real training. Give a file with --weights FILE.",
    )
