"""The weights that a network starts from: torchvision's, timm's, or a file's."""

import logging
import socket
import tarfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from container_train.errors import TrainError
from container_train.model import timm_models
from container_train.model.architectures import is_timm, weights_url

log = logging.getLogger(__name__)

HUB_SECONDS = 30.0  # without an answer; a download is tried once
FLOAT16_MAX = torch.finfo(torch.float16).max

State = Mapping[str, torch.Tensor]


def find(arch: str, weights: str, file: Path | None) -> tuple[str, State | None]:
    """Return the origin of the weights in words, and the state_dict (None: random weights). Raises TrainError."""
    if file is not None:
        return f"file {file.name}", read_state_dict(file)
    if weights.lower() == "none":
        log.warning("weights: none, the backbone is random: expect a far lower accuracy than with ImageNet weights")
        return "none", None
    url = weights_url(arch, weights)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(HUB_SECONDS)
    try:
        if is_timm(arch):
            file = timm_models.fetch(arch, HUB_SECONDS)
        else:
            member = torchvision.models.get_model_weights(arch)[weights]
            return f"torchvision {member.name}", member.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # the hub's client has other errors than urllib
        reason = str(getattr(error, "reason", error)).strip().split("\n")[0]
        raise TrainError(
            f"the ImageNet weights of {arch} could not be fetched from {url} ({reason}): pass a file (run.sh:"
            " --weights FILE; a job: a channel `weights` that holds it) or --weights none"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    published = timm_models.configuration(arch)
    log.info(
        "weights: %s of timm, licence: %s", published.tag or arch, published.license or "see their page on the hub"
    )
    return f"timm {published.tag or arch}", read_state_dict(file)


def read_state_dict(file: Path) -> State:
    """Read a state_dict without unpickling code, also from the key `state_dict` or `model`; or a .safetensors file.

    Raises TrainError.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"weights {file}: no such file") from None
    except Exception as error:
        # torch's own message advises to switch weights_only off, which would run code that the file brings.
        log.debug("torch.load: %s", error)
        raise TrainError(
            f"weights {file.name} could not be read as tensors ({type(error).__name__}, {file.stat().st_size} bytes):"
            f" {_instead(file, error)}"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        keys = f" with the keys {', '.join(map(repr, list(content)[:5]))[:200]}" if isinstance(content, dict) else ""
        raise TrainError(
            f"weights {file} hold no state_dict (a mapping of names to tensors), but {type(content).__name__}{keys}"
        )
    overflowed = []
    state = {}
    for name, value in content.items():
        if value.is_quantized or value.is_complex() or value.layout != torch.strided:
            raise TrainError(f"weights {file}: {name} is no plain tensor: save plain ones (model.state_dict())")
        if value.is_floating_point():
            value = value.float()
            if name.endswith("running_var") and value.isinf().any() and not value.isinf().all():
                # A variance above 65504 is infinite in float16, in which many keep weights. Divided by infinity, the
                # channel would be dead, and a running mean that is trained would never leave infinity.
                overflowed.append(name)
                value = value.masked_fill(value == torch.inf, FLOAT16_MAX)
        if not value.isfinite().all():
            raise TrainError(
                f"weights {file}: {name} holds values that are no finite numbers of float32: the file is damaged"
            )
        state[name.removeprefix("module.")] = value
    if overflowed:
        log.warning(
            "weights: infinite variances in %s: too large for float16; read as its largest value, %.0f",
            ", ".join(overflowed[:3]), FLOAT16_MAX,
        )  # fmt: skip
    return state


def _instead(file: Path, error: Exception) -> str:
    """Return what the file is instead of tensors, and what to do."""
    if tarfile.is_tarfile(file):
        return "it is an archive: unpack it, and give the weights in it (of this program's model.tar.gz, model.pth)"
    what = "damaged, or holding more than tensors"
    if "Unsupported" in str(error):  # a class, or an operation of pickle
        what = "it holds more than tensors, such as a whole model, whose code would have to be run"
    return f"{what}; expected a file of torch.save(model.state_dict(), FILE), or safetensors"


def load(
    model: nn.Module, state: State, arch: str, origin: str, new_layer: Set[str] = frozenset(), *, side: int
) -> None:
    """Load all tensors but those of the `new_layer`, which are new. Raises TrainError if the state is another's.

    `side` is that of the images which the model is for.
    """
    if is_timm(arch):
        state = timm_models.converted(arch, state, side)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in new_layer}
    given = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in new_layer}
    optional = ("AuxLogits.", "aux1.", "aux2.")  # of heads that are not used
    wrong = sorted(
        name
        for name in own.keys() | given.keys()
        if own.get(name) != given.get(name) and not name.startswith(optional)
        if name in given or not name.endswith("num_batches_tracked")
    )
    if wrong:
        raise TrainError(
            f"the weights ({origin}) do not fit {arch}: {len(wrong)} tensors differ, first {wrong[0]}, which is"
            f" {given.get(wrong[0], 'missing')}, expected {own.get(wrong[0], 'no such tensor')}; give the file of the"
            f" same architecture (hyperparameter arch), with its names ({next(iter(own))}; the file begins with"
            f" {next(iter(given), 'none')})"
        )
    if ignored := sorted(new_layer & state.keys()):
        log.info("weights: the last layer is new; of %s, %s are ignored", origin, ", ".join(ignored))
    model.load_state_dict({name: state[name] for name in own.keys() & given.keys()}, strict=False)
