"""Makes the artifact that is served from trained weights, checked through the code that will serve it."""

import contextlib
import copy
import errno
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from container_serve import artifact
from container_serve.artifact import Artifact
from container_serve.predictor import Predictor, convert_model, load_openvino
from container_serve.preprocess import Preprocessing
from container_train.errors import TrainError
from container_train.paths import replace_file

log = logging.getLogger(__name__)

MAX_DIFFERENCE = 0.01  # of a probability, between torch and the exported graph


def export(
    model: nn.Module,
    folder: Path,
    *,
    arch: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    details: Mapping[str, Any],
) -> Artifact:
    """Write weights, graph and model.json into `folder`.

    Raises TrainError if the graph computes something else than the model: then there is no model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)
    model = copy.deepcopy(model).cpu().eval()
    cast(Any, model).to(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    replace_file(folder / artifact.WEIGHTS, buffer.getvalue())
    _convert(model, folder, preprocessing.crop)
    try:
        result = artifact.write(
            folder,
            classes=classes,
            architecture=arch,
            preprocessing=preprocessing,
            precision="fp32",
            details=details,
        )
        _compare(model, result)
    except BaseException:
        withdraw(folder)
        raise
    return result


def withdraw(folder: Path) -> None:
    """Remove model.json, without which nothing takes the folder for a model."""
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)


@contextlib.contextmanager
def withdrawn_on_error(folder: Path) -> Iterator[None]:
    """Withdraw the export if its evaluation fails. (A job that is stopped exports again when it resumes.)"""
    try:
        yield
    except Exception:
        withdraw(folder)
        raise


def _convert(model: nn.Module, folder: Path, side: int) -> None:
    example = torch.zeros(1, 3, side, side)
    # The check would run the network three times more: whether the graph computes the same is looked at by _compare.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what the converter does as well
        traced = torch.jit.trace(model, example, check_trace=False)
    graph = convert_model(traced, example_input=example, input=[-1, 3, side, side])
    graph.outputs[0].get_tensor().set_names({"logits"})  # NNCF goes by the outputs' names
    temporary = folder / ".graph.xml"
    try:
        save_graph(graph, temporary)
        temporary.with_suffix(".bin").replace(folder / artifact.GRAPH_WEIGHTS)
        temporary.replace(folder / artifact.GRAPH)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_suffix(".bin").unlink(missing_ok=True)


def save_graph(graph: Any, file: Path) -> None:
    """Write an OpenVINO model: `file` (.xml) and its weights beside it (.bin).

    Raises OSError if the disk is full; OpenVINO's own error is one of C++ streams.
    """
    try:
        load_openvino().save_model(graph, file, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream error" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from None
        raise


def _compare(model: nn.Module, exported: Artifact) -> None:
    side = exported.preprocessing.crop
    sample = np.random.default_rng(0).standard_normal((4, 3, side, side), dtype=np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(sample)).softmax(1).numpy()
    difference = float(
        np.abs(expected - Predictor(exported, threads=len(os.sched_getaffinity(0))).probabilities(sample)).max()
    )
    if not difference <= MAX_DIFFERENCE:
        raise TrainError(
            f"the exported graph of {exported.architecture} gives other probabilities than the trained model"
            f" (by up to {difference:.3g}, allowed {MAX_DIFFERENCE:g}): this architecture cannot be served as it is"
        )
