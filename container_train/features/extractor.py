"""The frozen layers as they are run: by torch, or by OpenVINO if that is faster and computes the same."""

import functools
import hashlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

import torch

from container_serve import image, preprocess
from container_serve.predictor import convert_model, core, load_openvino
from container_train.compute.device import launched
from container_train.compute.precision import Precision
from container_train.data.files import Split
from container_train.data.images import Normalisation, first_images
from container_train.features.files import Features
from container_train.model.builder import Network

log = logging.getLogger(__name__)

# Images at a time. torch is a third slower with 16 than with 64. OpenVINO is as fast with 8, and the fewer there are,
# the shorter is the time at the end in which one thread computes the last of them alone.
BATCH, OPENVINO_BATCH = 64, 8
CHECKED = 8  # images on which OpenVINO has to agree with torch
# Converting the layers takes some seconds; on 2 cores it pays after a few hundred images.
OPENVINO_IMAGES = 500
# Batches that OpenVINO computes at the same time. On 2 cores a thread for each of two is 15 % faster than two threads
# for one, and does not stop when decoding takes one of the cores for a moment. Each takes some 200 MB.
OPENVINO_STREAMS = 4
# An image's features from OpenVINO may be off from torch's in float32 by so much (Euclidean norm of the difference
# over that of the features), or by twice of what torch itself is off when it computes in the same precision.
TOLERANCE, TOLERANCE_FACTOR = 1e-3, 2.0
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class FeatureExtractor:
    """Runs the frozen layers of `network` on pixels uint8 (N, 3, side, side), which it normalises.

    With `exact` (amp off) torch alone computes, in float32. Otherwise OpenVINO does it on a CPU if there are enough
    `images`, after `choose` has seen it agree with torch.
    """

    def __init__(
        self, network: Network, precision: Precision, device: torch.device, *, exact: bool, images: int
    ) -> None:
        self.network, self.precision, self.device, self.exact = network, precision, device, exact
        self.normalise = Normalisation(network.preprocessing, device)
        self.batch = BATCH
        self.wants_openvino = device.type == "cpu" and not exact and images >= OPENVINO_IMAGES
        self.by = "torch"
        self._queue: Any = None  # of OpenVINO's requests

    @functools.cached_property
    def sample(self) -> Features:
        """The features of a black image, as torch gives them in this precision: for their types and shapes."""
        side = self.network.preprocessing.crop
        return tuple(feature.cpu() for feature in self._torch(_black(1, side), self.precision))

    def describe(self) -> dict[str, Any]:
        """Return all that decides the features of an image, except the image: equal descriptions, equal features.

        The program that computes them is left out: both agree within the tolerance of this precision.
        """
        digest = hashlib.sha256()
        if self.network.backbone is not None:
            digest.update(self.network.backbone.code.encode())
            for name, tensor in sorted(self.network.backbone.state_dict().items()):
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

    def choose_on(self, splits: Mapping[str, Split]) -> None:
        """`choose` on the first training images. No file is read where torch computes in any case."""
        if self.wants_openvino and self.network.backbone is not None:
            self.choose(first_images(splits, self.network.preprocessing, CHECKED))

    def choose(self, pixels: torch.Tensor) -> None:
        """Take OpenVINO if it is wanted, can run these layers, and agrees with torch on some images' `pixels`."""
        if not self.wants_openvino:
            return
        self.wants_openvino, pixels = False, pixels[:CHECKED]
        try:
            queue = self._compile()
            (given,) = self._openvino(queue, [pixels])
            exact = self._torch(pixels, Precision(self.device.type, torch.float32))
            error = max(map(_difference, given, exact))
            allowed = max(
                TOLERANCE, TOLERANCE_FACTOR * max(map(_difference, self._torch(pixels, self.precision), exact))
            )
        except Exception as problem:  # an architecture that it cannot convert; the kinds of errors are not documented
            log.info("frozen layers: by torch, OpenVINO cannot (%s)", (str(problem).strip() or "unsaid").split("\n")[0])
            return
        if error <= allowed:
            self.batch, self._queue, self.by = OPENVINO_BATCH, queue, "OpenVINO"
        log.info("frozen layers: by %s, OpenVINO's features are off by %.2g, allowed %.2g", self.by, error, allowed)

    def __call__(self, pixels: torch.Tensor) -> Features:
        """Return the features: each (N, ...), in the types of `sample`; without a backbone the normalised images."""
        if self._queue is None:
            return self._torch(pixels, self.precision)
        return tuple(torch.cat(column) for column in zip(*self.run(pixels.split(self.batch)), strict=True))

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[Features]:
        """Yield the features on the CPU of each batch of at most `batch` images, in order.

        OpenVINO is given several batches ahead, a GPU one.
        """
        if self._queue is not None:
            yield from self._openvino(self._queue, batches)
            return
        before: tuple[Features, Callable[[], None]] | None = None
        for pixels in batches:
            features = tuple(feature.to("cpu", non_blocking=True) for feature in self._torch(pixels, self.precision))
            arrived = launched(self.device)
            if before is not None:
                before[1]()
                yield before[0]
            before = features, arrived
        if before is not None:
            before[1]()
            yield before[0]

    def _torch(self, pixels: torch.Tensor, precision: Precision) -> Features:
        images = self.normalise(pixels.to(self.device, non_blocking=True))
        if self.network.backbone is None:
            return (images,)
        # no_grad, not inference_mode: the output is input to layers that are trained.
        with torch.no_grad(), precision.autocast():
            features: Features = self.network.backbone(images)
        return features

    def _openvino(self, queue: Any, batches: Iterable[torch.Tensor]) -> Iterator[Features]:
        done: dict[int, Features] = {}
        sample = self.sample

        def collect(request: Any, key: tuple[int, int]) -> None:
            number, count = key
            done[number] = tuple(
                torch.from_numpy(tensor.data[:count]).to(like.dtype, copy=True)
                for tensor, like in zip(request.output_tensors, sample, strict=True)
            )

        queue.set_callback(collect)
        collected = 0
        try:
            for number, pixels in enumerate(batches):
                missing = _black(OPENVINO_BATCH - len(pixels), pixels.shape[-1])  # it is fast with one shape of input
                whole = torch.cat([pixels, missing]).permute(0, 2, 3, 1).contiguous()
                queue.start_async([whole.numpy()], (number, len(pixels)))  # waits for a free request
                while collected in done:
                    yield done.pop(collected)
                    collected += 1
        finally:
            queue.wait_all()
        yield from (done[number] for number in sorted(done))

    def _compile(self) -> Any:
        openvino = load_openvino()
        from openvino.preprocess import PrePostProcessor

        spec = self.network.preprocessing
        shape = [OPENVINO_BATCH, 3, spec.crop, spec.crop]
        # One image to trace with: torch runs it several times over.
        graph = convert_model(self.network.backbone, example_input=torch.zeros(1, *shape[1:]), input=shape)
        # It normalises, too: in its own threads, and in the first convolution's weights as far as they can hold it.
        steps = PrePostProcessor(graph)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32)
        steps.input().preprocess().scale(255.0).mean(list(spec.mean)).scale(list(spec.std))
        graph = steps.build()
        threads = torch.get_num_threads()
        streams = min(threads, OPENVINO_STREAMS)
        settings = {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": False,  # decoding runs beside it
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision.dtype],
        }
        return openvino.AsyncInferQueue(core().compile_model(graph, "CPU", settings), streams)


def _black(count: int, side: int) -> torch.Tensor:
    """Pixels uint8 (count, 3, side, side), in memory as decoding leaves them."""
    return torch.zeros(count, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _difference(features: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest relative difference of an image's features. Raises ValueError for other shapes."""
    if features.shape != exact.shape:
        raise ValueError("its features have other shapes than torch's")
    features, exact = features.float().flatten(1), exact.float().flatten(1)
    return float(((features - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(1e-12)).max())
