"""The functions of a model without a program of its own: images in, the most probable classes out."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve import artifact
from container_serve.codec import answers, form, media, requests
from container_serve.errors import ArtifactError, RequestError
from container_serve.predictor import Predictor, top
from container_serve.preprocess import preprocess
from container_serve.settings import Settings
from container_serve.worker import precompile

LOG = logging.getLogger("worker")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@dataclass
class Call:
    """A request on its way through the functions, and what the earlier ones leave for the later ones."""

    context: Any  # the model server's, of this request alone
    body: bytes
    request: requests.Request | None = None  # None where the user's input_fn has read the body
    answer_type: str = media.JSON
    errors: dict[int, RequestError] = field(default_factory=dict)  # of images, by their place in the request
    tensors: npt.NDArray[np.float32] | None = None  # computed ahead, in a batch with other requests
    probabilities: npt.NDArray[np.float32] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        value: str | None = self.context.get_request_header(0, name)
        return value

    @cached_property
    def content(self) -> tuple[bytes, str | None]:
        """The body and its type; of a form those of its one file. Raises RequestError."""
        kind = self.header("Content-Type")
        if kind and kind.split(";")[0].strip().lower() == form.FORM:
            return form.file(self.body, kind)
        return self.body, kind

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - begun


class DefaultHandler:
    """The functions for which the user has none of their own.

    input_fn gives float32 (N, 3, H, W), predict_fn float32 (N, classes), output_fn the answer.
    """

    call: Call  # the request that is being answered
    artifact: artifact.Artifact  # there need be none where the user has written all the functions

    def __init__(self, settings: Settings, model_dir: Path, *, optional: bool) -> None:
        """Raises ArtifactError; with `optional` there need be no artifact."""
        self.settings = settings
        self.writes = True  # the answer is that of default_output_fn
        self.deadline = 0.0  # to stop decoding: a few megabytes hold dozens of images that take seconds each
        self.has_artifact = not optional or (model_dir / artifact.MODEL_JSON).exists()
        if not self.has_artifact:
            return
        # The supervisor has verified the hashes of the one model; further models come without it.
        self.artifact = artifact.read(model_dir, verify=settings.multi_model)
        for notice in self.artifact.notices if settings.multi_model else ():
            LOG.warning("%s: %s", model_dir, notice)
        weights = self.artifact.document["files"].get(artifact.GRAPH_WEIGHTS, {})
        self.description = {  # of the model, in each answer
            "architecture": self.artifact.architecture,
            "precision": self.artifact.precision,
            "sha256": str(weights.get("sha256", ""))[:12],
        }

    def default_model_fn(self, model_dir: str) -> Predictor:
        cache = precompile.wait(Path(os.environ["BYOC_RUN_DIRECTORY"]))
        predictor = Predictor(self.artifact, self.settings.threads or 1, cache=cache)
        predictor.warm_up()
        return predictor

    def predict_together(self, calls: Sequence[Call], model: Predictor) -> None:
        """Compute requests of one image each in one batch. An error of one of them is left to its own turn."""
        decoded, tensors = [], []
        for self.call in calls:
            with suppress(RequestError), self.call.timed("decode"):
                body, kind = self.call.content
                if media.media_type(kind) not in (media.JSON, *media.LINE_TYPES):
                    self.call.tensors = self.default_input_fn(body, kind)
                    decoded.append(self.call)
                    tensors.append(self.call.tensors)
        if len(tensors) > 1:
            begun = time.perf_counter()
            with suppress(ArtifactError):
                table = model.probabilities(np.concatenate(tensors))
                seconds = time.perf_counter() - begun
                for call, row in zip(decoded, table, strict=True):
                    call.probabilities, call.seconds["model"] = row[None], seconds

    def read(self, body: bytes, content_type: str | None) -> requests.Request:
        """The request in the body. Raises RequestError, also where no answer can be given that its caller accepts."""
        call = self.call
        # Whoever else writes this answer gets all images at once.
        most = requests.MAX_LINES if self.writes else requests.MAX_INSTANCES
        call.request = request = requests.parse(body, content_type, call.header(CUSTOM_ATTRIBUTES), most)
        if self.writes:  # before anything is computed
            default = media.negotiate(self.settings.default_accept)
            call.answer_type = media.negotiate(
                call.header("Accept"), request.answer if default == media.JSON else default
            )
        return request

    def tensors(self, request: requests.Request, first: int = 0) -> npt.NDArray[np.float32]:
        """MAX_INSTANCES of the images from number `first` on; of those that cannot be read the errors are kept."""
        call = self.call
        if call.tensors is not None:
            return call.tensors
        tensors: list[npt.NDArray[np.float32]] = []
        for index, image in enumerate(request.images[first : first + requests.MAX_INSTANCES], first):
            try:
                tensors.append(self._tensor(image))
            except RequestError as error:
                if not request.batched:
                    raise
                located = RequestError(error.status, error.kind, f"{request.place(index)}: {error}")
                if not self.writes:  # whoever writes this answer does not know of errors
                    raise located from None
                call.errors[index] = located
        if len(tensors) == 1:
            return tensors[0][None]
        side = self.artifact.preprocessing.crop
        return np.stack(tensors) if tensors else np.empty((0, 3, side, side), np.float32)

    def default_input_fn(self, body: bytes, content_type: str | None) -> npt.NDArray[np.float32]:
        return self.tensors(self.read(body, content_type))

    def _tensor(self, image: requests.EncodedImage) -> npt.NDArray[np.float32]:
        if isinstance(image, RequestError):
            raise image
        if time.perf_counter() > self.deadline:
            raise RequestError(400, "TooMuchWork", "the images before it took too long: send fewer at a time")
        spec, limits = self.artifact.preprocessing, self.settings
        return preprocess(image, spec, max_pixels=limits.max_pixels, max_bytes=limits.image_bytes)

    def default_predict_fn(self, tensors: npt.NDArray[np.float32], model: Predictor) -> npt.NDArray[np.float32]:
        if self.call.probabilities is not None:
            return self.call.probabilities
        if not len(tensors):  # of all its images none can be read
            return np.empty((0, len(self.artifact.classes)), np.float32)
        return model.probabilities(tensors)

    def default_output_fn(self, probabilities: Any, accept: str) -> tuple[bytes, str]:
        classes, request, errors = self.artifact.classes, self.call.request, self.call.errors
        table = np.asarray(probabilities)
        count = len(request.images) - len(errors) if request else len(table)
        if table.ndim != 2 or table.shape[1] != len(classes) or len(table) != count:
            shape = f"({count if request else 'images'}, {len(classes)})"
            raise ValueError(f"predict_fn gave shape {table.shape}, expected {shape}")
        top_k = request.top_k if request else requests.DEFAULT_TOP_K
        batched = request.batched if request else len(table) > 1
        good = (top(row, classes, top_k) for row in table)
        rows: list[answers.Row] = [errors[i] if i in errors else next(good) for i in range(count + len(errors))]
        kind = self.call.answer_type if request else media.negotiate(accept)
        return answers.render(rows, kind, model=self.description, batched=batched), kind
