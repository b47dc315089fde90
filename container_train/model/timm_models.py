"""The networks of timm: their names, the images that they take, their weights. Imports timm (2 s) when it is asked."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from container_train.errors import TrainError, did_you_mean
from container_train.model.architectures import TIMM

log = logging.getLogger(__name__)

FILE = "model.safetensors"  # of every repository that timm has on its hub
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the hub's client is imported
for name in ("timm.models._builder", "httpx2"):  # a line for each state_dict and each request
    logging.getLogger(name).setLevel(logging.WARNING)


def configuration(arch: str) -> Any:
    """Return timm's PretrainedCfg of timm/NAME or timm/NAME.TAG. Raises TrainError for one that timm does not have."""
    import timm

    name = arch.removeprefix(TIMM)
    model = name.partition(".")[0]
    wrong = f"hyperparameter arch has value {arch!r}: timm {timm.__version__} has no such"
    if not timm.is_model(model):
        known = [f"{TIMM}{name}" for name in timm.list_models()]
        raise TrainError(f"{wrong} model: {did_you_mean(arch, known, 'timm.list_models() in Python lists all')}")
    tags = timm.models.get_arch_pretrained_cfgs(model)
    if name not in tags and "." in name:
        names = " or ".join(f"{TIMM}{known}" for known in [model, *tags][:6])
        raise TrainError(f"{wrong} weights; expected {names}{' ...' if len(tags) > 5 else ''}")
    return timm.get_pretrained_cfg(name, allow_unregistered=False)


def presets(arch: str) -> dict[str, Any]:
    """Return input_size (channels, height, width), crop_pct, mean, std and interpolation of the images it evaluates on.

    Raises TrainError for images that the serving code does not make.
    """
    from timm.data import resolve_data_config

    found: dict[str, Any] = resolve_data_config(pretrained_cfg=configuration(arch).to_dict())
    channels, height, width = found["input_size"]
    if found["crop_mode"] != "center" or height != width or channels != 3:
        raise TrainError(
            f"hyperparameter arch has value {arch!r}: it takes images of {width} x {height} pixels cut by"
            f" {found['crop_mode']!r}, and this program makes squares from the centre; choose another model or tag"
        )
    return found


def bare(arch: str, classes: int, side: int, **options: Any) -> nn.Module:
    """Build the network; if it is for images of one size only, for those of `side` pixels (0: its own)."""
    import timm

    if side and configuration(arch).fixed_input_size:
        options["img_size"] = side
    model: nn.Module = timm.create_model(arch.removeprefix(TIMM), num_classes=classes, **options)
    return model


def url(arch: str) -> str:
    """Return where the file of its pretrained weights is. Raises TrainError if there is none on the hub."""
    from huggingface_hub import hf_hub_url

    repository = configuration(arch).hf_hub_id
    if not repository:
        raise TrainError(
            f"timm has no weights of {arch} on its hub: give another tag (timm/NAME.TAG), a file as the channel weights"
            " (scripts: --weights FILE), or weights none"
        )
    return str(hf_hub_url(repository, FILE))


def fetch(arch: str, seconds: float) -> Path:
    """Return the file of its pretrained weights, from the hub or its cache.

    Raises the error of a hub that cannot be reached: tried once, for `seconds`, where the hub's own client would try
    for minutes.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils.tqdm import disable_progress_bars

    address, repository = url(arch), configuration(arch).hf_hub_id
    if not isinstance(cached := try_to_load_from_cache(repository, FILE), str):
        get_hf_file_metadata(address, timeout=seconds)
        disable_progress_bars()
        cached = hf_hub_download(repository, FILE)
    return Path(cached)


def converted(arch: str, state: Mapping[str, torch.Tensor], side: int) -> Mapping[str, torch.Tensor]:
    """Return the weights as this version of timm names and shapes them, for images of `side` pixels.

    timm renames the tensors of older files, and interpolates position embeddings. Weights that it does not take are
    returned as they are.
    """
    layers = configuration(arch).classifier or ()
    names = [f"{layer}.weight" for layer in ([layers] if isinstance(layers, str) else layers)]
    classes = next((len(state[name]) for name in names if name in state), configuration(arch).num_classes)
    try:
        overlay = {"state_dict": dict(state), "num_classes": classes}
        model = bare(arch, classes, side, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # each family has a converter of its own, and errors of its own
        log.debug("timm: %s", error)
        return state
    return model.state_dict()
