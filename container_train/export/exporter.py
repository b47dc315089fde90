"""From trained weights to the artifact that is served, checked through the code that will serve it."""

import contextlib
import copy
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
from container_serve.predictor import Predictor, convert_model
from container_serve.preprocess import Preprocessing
from container_train.errors import TrainError
from container_train.export import graph as graphs
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
    """Write weights, graph and model.json into `folder`. Raises TrainError when the graph does not compute the same:
    then there is no model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)
    model = copy.deepcopy(model).cpu().eval()
    cast(Any, model).to(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    replace_file(folder / artifact.WEIGHTS, buffer.getvalue())
    _save_graph(model, folder, preprocessing.crop)
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
    """Without its model.json nobody takes what lies there for a model."""
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)


@contextlib.contextmanager
def withdrawn_on_error(folder: Path) -> Iterator[None]:
    """Within, an export is measured, which may fail. (A job that is stopped makes another one when it goes on.)"""
    try:
        yield
    except Exception:
        withdraw(folder)
        raise


def _save_graph(model: nn.Module, folder: Path, side: int) -> None:
    example = torch.zeros(1, 3, side, side)
    # The check would run the network three times more: whether the graph computes the same is looked at by _compare.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what the converter does as well
        traced = torch.jit.trace(model, example, check_trace=False)
    graph = convert_model(traced, example_input=example, input=[-1, 3, side, side])
    graph.outputs[0].get_tensor().set_names({"logits"})  # NNCF goes by the outputs' names
    temporary = folder / ".graph.xml"
    try:
        graphs.save(graph, temporary)
        temporary.with_suffix(".bin").replace(folder / artifact.GRAPH_WEIGHTS)
        temporary.replace(folder / artifact.GRAPH)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_suffix(".bin").unlink(missing_ok=True)


def _compare(model: nn.Module, exported: Artifact) -> None:
    side = exported.preprocessing.crop
    sample = np.random.default_rng(0).standard_normal((4, 3, side, side), dtype=np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(sample)).softmax(1).numpy()
    difference = float(np.abs(expected - Predictor(exported, threads=_cores()).probabilities(sample)).max())
    if not difference <= MAX_DIFFERENCE:
        raise TrainError(
            f"the exported graph of {exported.architecture} gives other probabilities than the trained model"
            f" (by up to {difference:.3g}, allowed {MAX_DIFFERENCE:g}): this architecture cannot be served as it is"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0))
