"""The functions of a model without a program of its own: images in, the most probable classes out."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sagemaker_inference.utils import retrieve_content_type_header

from container_serve import artifact, batch, codec, precompile
from container_serve.errors import RequestError
from container_serve.predictor import Predictor, top
from container_serve.preprocess import preprocess
from container_serve.settings import Settings

LOG = logging.getLogger("worker")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class DefaultHandler:
    """The functions for which the user has none of their own.

    input_fn gives float32 (N, 3, H, W), predict_fn float32 (N, classes), output_fn the answer.
    """

    def __init__(self, settings: Settings, model_dir: Path, *, optional: bool) -> None:
        """With `optional` there need be no artifact, for the user may have written all the functions."""
        self.settings = settings
        self.request: codec.Request | None = None
        self.ahead: dict[int, batch.Computed] = {}  # by the identity of the request's context
        self.writes = True  # the answer is that of default_output_fn
        self.parts = 1  # in which the request is computed
        self.first = 0  # the number of this part's first picture
        self.last = 0.0  # when to leave off decoding: a few megabytes hold dozens of pictures that take seconds each
        self.answer_type = codec.JSON
        self.errors: dict[int, RequestError] = {}  # of pictures, by their place in the request
        self.artifact: artifact.Artifact | None = None
        if not optional or (model_dir / artifact.MODEL_JSON).exists():
            # The supervisor has verified the hashes of the one model; further models come without it.
            self.artifact = artifact.read(model_dir, verify=settings.multi_model)
            for notice in self.artifact.notices if settings.multi_model else ():
                LOG.warning("%s: %s", model_dir, notice)

    def default_model_fn(self, model_dir: str) -> Predictor:
        assert self.artifact is not None
        compiled = precompile.wait(Path(os.environ["BYOC_RUN_DIRECTORY"]), self.settings.startup_timeout)
        predictor = Predictor(self.artifact, self.settings.threads or 1, compiled=compiled)
        predictor.warm_up()
        return predictor

    def predict_ahead(self, data: list[dict[str, Any]], contexts: list[Any], model: Predictor) -> None:
        """Compute several requests in one batch. Whatever is wrong with one is left to its own turn."""
        decoded = []
        for one, context in zip(data, contexts, strict=True):
            begun = time.perf_counter()
            content_type = retrieve_content_type_header(context.get_all_request_header(0))
            with suppress(RequestError):
                tensors = self.default_input_fn(one.get("body") or b"", content_type, context)
                assert self.request is not None
                if not self.request.batched:
                    seconds = time.perf_counter() - begun
                    decoded.append(batch.Decoded(context, self.request, self.answer_type, tensors, seconds))
        self.ahead = batch.compute(decoded, model)

    def default_input_fn(self, body: bytes | str, content_type: str, context: Any) -> npt.NDArray[np.float32]:
        assert self.artifact is not None
        if ahead := self.ahead.get(id(context)):
            self.request, self.answer_type, self.errors = ahead.request, ahead.answer_type, {}
            return ahead.tensors
        raw = body.encode() if isinstance(body, str) else bytes(body)  # bytes already are not copied
        attributes = context.get_request_header(0, CUSTOM_ATTRIBUTES)
        self.request = codec.parse(raw, content_type, attributes)
        if self.writes:  # before anything is computed
            default = codec.negotiate(self.settings.default_accept)
            preferred = self.request.answer if default == codec.JSON else default
            self.answer_type = codec.negotiate(context.get_request_header(0, "Accept"), preferred)
            codec.check_parts(self.parts, self.request.top_k, self.answer_type)
        tensors: list[npt.NDArray[np.float32]] = []
        self.errors = {}
        for index, image in enumerate(self.request.images):
            try:
                tensors.append(self._tensor(image))
            except RequestError as error:
                if not self.request.batched:
                    raise
                if not self.writes:  # whoever writes this answer does not know of errors
                    raise RequestError(error.status, error.kind, f"instances[{index}]: {error}") from None
                self.errors[index] = error
        side = self.artifact.preprocessing.crop
        if not tensors:
            return np.empty((0, 3, side, side), np.float32)
        return np.stack(tensors) if len(tensors) > 1 else tensors[0][None]

    def _tensor(self, image: codec.Image) -> npt.NDArray[np.float32]:
        assert self.artifact is not None
        if isinstance(image, RequestError):
            raise image
        if time.perf_counter() > self.last:
            raise RequestError(400, "TooMuchWork", "the pictures before it took too long: send fewer at a time")
        spec, limits = self.artifact.preprocessing, self.settings
        return preprocess(image, spec, max_pixels=limits.max_pixels, max_bytes=limits.picture_bytes)

    def default_predict_fn(
        self, tensors: npt.NDArray[np.float32], model: Predictor, context: Any
    ) -> npt.NDArray[np.float32]:
        assert self.artifact is not None
        if ahead := self.ahead.get(id(context)):
            return ahead.probabilities
        if not len(tensors):  # of all its pictures none can be read
            return np.empty((0, len(self.artifact.classes)), np.float32)
        return model.probabilities(tensors)

    def default_output_fn(self, probabilities: Any, accept: str) -> tuple[bytes, str]:
        assert self.artifact is not None
        classes, request, errors = self.artifact.classes, self.request, self.errors
        table = np.asarray(probabilities)
        count = len(request.images) - len(errors) if request else len(table)
        if table.ndim != 2 or table.shape[1] != len(classes) or len(table) != count:
            shape = f"({count if request else 'pictures'}, {len(classes)})"
            raise ValueError(f"predict_fn gave shape {table.shape}, expected {shape}")
        top_k = request.top_k if request else codec.DEFAULT_TOP_K
        batched = request.batched if request else len(table) > 1
        good = (top(row, classes, top_k) for row in table)
        rows: list[codec.Row] = [errors[i] if i in errors else next(good) for i in range(count + len(errors))]
        kind = self.answer_type if request else accept
        return codec.render(rows, kind, model=self._model(), batched=batched, first=self.first)

    def _model(self) -> dict[str, object]:
        """Return the part of an answer that describes the model."""
        assert self.artifact is not None
        weights = self.artifact.document["files"].get(artifact.GRAPH_WEIGHTS, {})
        return {
            "architecture": self.artifact.architecture,
            "precision": self.artifact.precision,
            "sha256": str(weights.get("sha256", ""))[:12],
        }
