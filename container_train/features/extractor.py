"""The frozen layers as they are run: by torch, or by OpenVINO where that is faster and computes the same."""

import contextlib
import hashlib
import inspect
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from container_serve import image, preprocess
from container_serve.predictor import convert_model, core, load_openvino
from container_train.features.files import Features, Layout
from container_train.model.builder import Network
from container_train.training.precision import Precision

log = logging.getLogger(__name__)

# Pictures at a time. torch is a third slower with 16 than with 64; OpenVINO is not, and 16 take less shared memory.
BATCH, OPENVINO_BATCH = 64, 16
CHECKED = 8  # pictures on which OpenVINO has to agree with torch
# Converting the layers takes some seconds; on 2 cores it is won back after a few hundred pictures.
OPENVINO_PICTURES = 500
# Batches that OpenVINO computes at the same time. On 2 cores a thread for each of two is 15 % faster than two threads
# for one, and does not stand still when decoding takes one of the cores for a moment. Each takes some 200 MB.
OPENVINO_STREAMS = 4
# A picture's features from OpenVINO may be off from torch's in float32 by so much (Euclidean norm of the difference
# over that of the features), or by twice of what torch itself is off when it computes in the same precision.
TOLERANCE, TOLERANCE_FACTOR = 1e-3, 2.0
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Frozen:
    """Runs the frozen layers of `network` on pictures float32 (N, 3, side, side).

    With `exact` (amp off) torch alone computes, in float32. Otherwise OpenVINO does it on a CPU, where there are
    `pictures` enough, after `choose` has seen it agree with torch.
    """

    def __init__(
        self, network: Network, precision: Precision, device: torch.device, *, exact: bool, pictures: int
    ) -> None:
        self.network, self.precision, self.device, self.exact = network, precision, device, exact
        self.batch = BATCH
        self.wants_openvino = device.type == "cpu" and not exact and pictures >= OPENVINO_PICTURES
        self.by = f"torch {torch.__version__}"
        self._requests: list[Any] = []  # OpenVINO's, each for one batch at a time
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        """Types and shapes of the features, as torch gives them in this precision."""
        if self._layout is None:
            side = self.network.preprocessing.crop
            self._layout = Layout.of(self._torch(torch.zeros(1, 3, side, side)))
        return self._layout

    def describe(self) -> dict[str, Any]:
        """All that decides the features of a picture, but for the picture: equal descriptions, equal features.

        Which program computes them is left out: they agree within the tolerance of this precision.
        """
        digest = hashlib.sha256()
        if self.network.prefix is not None:
            digest.update(self.network.prefix.code.encode())
            for name, tensor in sorted(self.network.prefix.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        source = inspect.getsource(image) + inspect.getsource(preprocess)
        decoding = hashlib.sha256(source.encode()).hexdigest()[:16]
        return {
            "frozen layers": digest.hexdigest(),
            "precision": "exact" if self.exact else str(self.precision.dtype).removeprefix("torch."),
            "preprocessing": self.network.preprocessing.to_dict(),
            "decoding": f"{decoding}, Pillow {metadata.version('pillow')}",
        }

    def choose(self, sample: torch.Tensor) -> None:
        """Take OpenVINO where it is wanted, can run these layers, and agrees with torch on the pictures `sample`."""
        if not self.wants_openvino or self._requests:
            return
        self.wants_openvino, sample = False, sample[:CHECKED]
        try:
            requests, version = self._compile()
            requests[0].infer([_padded(sample, OPENVINO_BATCH)])
            given = self._result(requests[0], len(sample))
            exact = [feature.float() for feature in self._torch(sample, autocast=False)]
            error = max(map(_difference, given, exact))
            allowed = max(TOLERANCE, TOLERANCE_FACTOR * max(map(_difference, self._torch(sample), exact)))
        except Exception as problem:  # an architecture that it cannot convert, in whatever way it says so
            log.info("frozen layers: by torch, OpenVINO cannot (%s)", (str(problem).strip() or "unsaid").split("\n")[0])
            return
        if not error <= allowed:
            log.info("frozen layers: by torch, OpenVINO's features are off by %.2g, allowed %.2g", error, allowed)
            return
        log.info("frozen layers: by OpenVINO, its features are off by %.2g, allowed %.2g", error, allowed)
        self.batch = OPENVINO_BATCH
        self._requests, self.by = requests, f"openvino {version}"

    def __call__(self, pictures: torch.Tensor) -> Features:
        """The features of the pictures: each (N, ...), in the types of `layout`; without a prefix the pictures."""
        if not self._requests:
            return self._torch(pictures)
        return tuple(torch.cat(column) for column in zip(*self.run(pictures.split(self.batch)), strict=True))

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[Features]:
        """The features of each batch of at most `batch` pictures, in order; OpenVINO is given several ahead."""
        if not self._requests:
            yield from map(self._torch, batches)
            return
        free = list(self._requests)
        busy: deque[tuple[Any, npt.NDArray[np.float32], int]] = deque()  # the array has to live as long
        for pictures in batches:
            if not free:
                yield self._collected(busy, free)
            request, array = free.pop(), _padded(pictures, OPENVINO_BATCH)
            request.start_async([array], share_inputs=True)
            busy.append((request, array, len(pictures)))
        while busy:
            yield self._collected(busy, free)

    def _collected(self, busy: deque[tuple[Any, npt.NDArray[np.float32], int]], free: list[Any]) -> Features:
        request, _, count = busy.popleft()
        request.wait()
        features = self._result(request, count)
        free.append(request)
        return features

    def _torch(self, pictures: torch.Tensor, *, autocast: bool = True) -> Features:
        pictures = pictures.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        if self.network.prefix is None:
            return (pictures,)
        # no_grad, not inference_mode: what comes out is input to layers that are trained.
        with torch.no_grad(), self.precision.autocast() if autocast else contextlib.nullcontext():
            features: Features = self.network.prefix(pictures)
        return features

    def _result(self, request: Any, count: int) -> Features:
        given = [tensor.data for tensor in request.output_tensors]
        if [feature.shape[1:] for feature in given] != [shape for _, shape in self.layout.features]:
            raise ValueError("its features have other shapes than torch's")
        return tuple(
            torch.from_numpy(feature[:count]).to(dtype, copy=True)
            for feature, (dtype, _) in zip(given, self.layout.features, strict=True)
        )

    def _compile(self) -> tuple[list[Any], str]:
        openvino = load_openvino()
        side = self.network.preprocessing.crop
        shape = [OPENVINO_BATCH, 3, side, side]
        # One picture to trace with: torch runs it several times over.
        graph = convert_model(self.network.prefix, example_input=torch.zeros(1, 3, side, side), input=shape)
        threads = torch.get_num_threads()
        streams = min(threads, OPENVINO_STREAMS)
        settings = {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": False,  # decoding goes on beside it
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision.dtype],
        }
        compiled = core().compile_model(graph, "CPU", settings)
        return [compiled.create_infer_request() for _ in range(streams)], str(openvino.__version__)


def _padded(pictures: torch.Tensor, batch: int) -> npt.NDArray[np.float32]:
    """The pictures as float32 (batch, ...), black ones at the end: one shape of input is what OpenVINO is fast at."""
    array = np.ascontiguousarray(pictures.numpy(), dtype=np.float32)
    if len(array) == batch:
        return array
    return np.concatenate([array, np.zeros((batch - len(array), *array.shape[1:]), dtype=np.float32)])


def _difference(features: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest relative difference of a picture's features."""
    features, exact = features.float().flatten(1), exact.flatten(1)
    return float(((features - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(1e-12)).max())
