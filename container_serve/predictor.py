"""The graph that is served, run by OpenVINO on the CPU."""

import ctypes
import functools
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve.artifact import GRAPH, GRAPH_WEIGHTS, Artifact
from container_serve.errors import ArtifactError

# What the artifact calls its precision -> what the floating point operations are computed in. OpenVINO would
# otherwise choose bf16 by itself on the CPUs that have it, and answers would differ from machine to machine.
_PRECISION = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# The graph's memory grows with the batch and never shrinks (ResNet50: about 10 MB per image).
MAX_BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """One class of an answer; `probability` is a fraction of 1."""

    index: int
    label: str
    probability: float


class Predictor:
    """The compiled graph of an artifact, for several callers at a time, which share its weights."""

    def __init__(self, artifact: Artifact, threads: int = 1, callers: int = 1, cache: Path | None = None) -> None:
        """Compile model.xml for `callers` threads that ask at the same time; each is computed for with `threads`.

        `cache` is a folder in which OpenVINO keeps what it compiles, for equal Predictors on this machine.
        Raises ArtifactError when the graph cannot be read, does not take this artifact's images, or does
        not have one output per class.
        """
        if artifact.precision not in _PRECISION:
            expected = ", ".join(_PRECISION)
            raise ArtifactError(f"model.json: precision: expected one of {expected}, got {artifact.precision!r}")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": str(callers),
            "INFERENCE_NUM_THREADS": str(callers * threads),
            # Two pinned processes would land on the same core.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": _PRECISION[artifact.precision],
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        self._side = artifact.preprocessing.crop
        self._graph = _compiled(artifact, settings)
        self._requests: SimpleQueue[Any] = SimpleQueue()  # those that nobody uses just now
        for _ in range(callers):
            self._requests.put(self._graph.create_infer_request())

    def probabilities(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, 3, H, W) -> float32 (N, classes), each row adding up to 1.

        Raises ArtifactError when the graph computes something that is not a number.
        """
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        parts = [batch[i : i + MAX_BATCH] for i in range(0, len(batch), MAX_BATCH)]
        request = self._requests.get()
        try:
            logits = np.concatenate([request.infer(part, share_inputs=True)[0] for part in parts])
        finally:
            self._requests.put(request)
        if not np.isfinite(logits).all():
            raise ArtifactError(f"{GRAPH}: computes values that are not finite; train the model again")
        return softmax(logits)

    def warm_up(self) -> None:
        """Run one black image, so that the first request does not pay for the set-up."""
        self.probabilities(np.zeros((1, 3, self._side, self._side), dtype=np.float32))


def _compiled(artifact: Artifact, settings: dict[str, Any]) -> Any:
    for name in (GRAPH, GRAPH_WEIGHTS):
        if name not in artifact.document["files"]:
            raise ArtifactError(f"{name}: missing, there is no graph to serve; export the model again")
    path, reason = artifact.directory / GRAPH, " (not OpenVINO's XML)"
    with path.open("rb") as file:
        # OpenVINO would try its other formats on anything else, each with a complaint of its own on stderr.
        is_graph = re.search(rb'<net\s[^>]*version="', file.read(4096))
    if is_graph:
        try:
            graph = core().compile_model(path, "CPU", settings)
        except Exception as error:
            # The one telling line of a stack of source positions.
            lines = [line.strip() for line in str(error).splitlines()]
            lines = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
            reason = f" ({lines[-1][:160]})" if lines else ""
        else:
            _check(graph, artifact)
            return graph
    raise ArtifactError(f"{GRAPH}: is no readable graph{reason}; export the model again")


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float32 (N, C) -> float32 (N, C); shifted by each row's maximum, so that no exponential overflows."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def top(probabilities: npt.NDArray[np.float32], classes: Sequence[str], k: int) -> list[Prediction]:
    """The `k` most probable classes of one row (C,), most probable first, of equals the lower index first."""
    order = np.argsort(-probabilities, kind="stable")[: min(k, len(classes))]
    return [Prediction(int(i), classes[i], float(probabilities[i])) for i in order]


@functools.cache
def core() -> Any:
    """OpenVINO's core: one for the process, which stays until its end.

    Its CPU plugin gives the thread that first compiles a graph a stack of its own for signals, and frees it in the end.
    With several cores that end in another order than the reverse of their start, the thread is left with a freed
    one, and the next signal that has a handler (a child's end, SIGTERM) kills the process.
    """
    openvino = load_openvino()
    # Its first conversion of an array fills a table. Two threads that both are the first wait for each other forever:
    # one has the table's lock and waits for the interpreter's, the other the reverse.
    openvino.Tensor(np.zeros(1, dtype=np.float32)).data.sum()
    return openvino.Core()


def load_openvino() -> Any:
    """The openvino module without its telemetry, and without its model converter until `convert_model` is used."""
    if "openvino" not in sys.modules:
        # An entry of None makes the import fail, which openvino allows for both. The converter costs a third of
        # the import's time, and is what starts the telemetry.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
        try:
            import_module("openvino")
        finally:
            del sys.modules["openvino.tools.ovc"]
    return sys.modules["openvino"]


def preload() -> None:
    """Load OpenVINO and its plugin, but start none of its threads: the processes forked from this one share them."""
    for plugin in Path(load_openvino().__file__).parent.glob("libs/libopenvino_*_cpu_plugin.so"):
        ctypes.CDLL(str(plugin))


def convert_model(*arguments: Any, **options: Any) -> Any:
    """OpenVINO's own function of that name, imported now, without the warnings of torch's tracing."""
    load_openvino()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("openvino.tools.ovc").convert_model(*arguments, **options)


def _check(graph: Any, artifact: Artifact) -> None:
    """The graph's one input takes the artifact's images, and its one output has a number for each class."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ArtifactError(
            f"{GRAPH}: expected one input and one output, it has {len(graph.inputs)} and {len(graph.outputs)}"
        )
    side = artifact.preprocessing.crop
    taken, given = graph.inputs[0].get_partial_shape(), graph.outputs[0].get_partial_shape()
    wanted = [-1, 3, side, side]
    fits = taken.rank.is_static and len(taken) == len(wanted) and taken[0].is_dynamic
    if not fits or any(taken[i].is_static and taken[i].get_length() != wanted[i] for i in (1, 2, 3)):
        raise ArtifactError(f"{GRAPH}: takes input {taken}, expected [?,3,{side},{side}]; export the model again")
    outputs = given[1].get_length() if given.rank.is_static and len(given) == 2 and given[1].is_static else given
    if outputs != len(artifact.classes):
        raise ArtifactError(
            f"{GRAPH}: has {outputs} outputs, but model.json lists {len(artifact.classes)} classes;"
            " export the model again with its own classes"
        )
