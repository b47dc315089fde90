"""One worker's model with its functions: the user's (code/inference.py) or our defaults, chosen by sagemaker-inference.

A request passes through input_fn, predict_fn and output_fn, or through a transform_fn of the user's.
"""

import copy
import http
import importlib
import inspect
import logging
import os
import sys
import time
import types
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sagemaker_inference.content_types import ANY, UTF8_TYPES
from sagemaker_inference.errors import BaseInferenceToolkitError

from container_serve import artifact
from container_serve.codec import requests
from container_serve.codec.media import JSON
from container_serve.errors import RequestError, ServeError
from container_serve.settings import Settings
from container_serve.worker import user_code
from container_serve.worker.defaults import Call, DefaultHandler

LOG = logging.getLogger("worker")
REQUEST_ID = "X-Request-Id"  # the front end puts it into every request
NO_USER_CODE = "container_serve.no_user_code"  # the name of no module: the Transformer then takes our defaults
FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn")


def _import_transformer() -> Any:
    """The class, imported while its decoder is a stand-in.

    That decoder unpickles what a caller sends (np.load with allow_pickle), so nothing of ours may reach it, and it
    imports scipy, half of a worker's start. A user's own program can import the real one all the same.
    """
    name = "sagemaker_inference.decoder"
    sys.modules[name] = types.ModuleType(name)
    try:
        module = importlib.import_module("sagemaker_inference.transformer")
    finally:
        del sys.modules[name]
    vars(module)["signature"] = lru_cache(inspect.signature)  # it asks for that of each function at each request
    return module.Transformer


Transformer: Any = _import_transformer()


class Service(Transformer):  # type: ignore[misc]
    """Answers the requests of one worker."""

    def __init__(self, settings: Settings, model_dir: Path, context: Any) -> None:
        self.settings = settings
        self.model_dir = model_dir
        self.user_code = user_code.find(settings, model_dir)
        self.defaults = DefaultHandler(settings, model_dir, optional=self.user_code is not None)
        super().__init__(self.defaults)
        if self.user_code is not None:
            sys.path.insert(0, str(self.user_code.parent))
            os.chdir(model_dir)  # where such programs look for their files
            LOG.info("own program: %s", self.user_code)
        # The Transformer looks for the module of this name.
        os.environ["SAGEMAKER_PROGRAM"] = self.user_code.stem if self.user_code else NO_USER_CODE
        self.validate_and_initialize(str(model_dir), context)

    def _validate_user_module_and_set_functions(self) -> None:
        super()._validate_user_module_and_set_functions()
        self.staged = self._transform_fn == self._default_transform_fn
        used = FUNCTIONS if self.staged else FUNCTIONS[:1]
        ours = [name for name in used if getattr(self, f"_{name}") == getattr(self.defaults, f"default_{name}")]
        self.reads, self.defaults.writes = "input_fn" in ours, "output_fn" in ours
        if self.user_code and "predict_fn" in ours and "model_fn" not in ours:
            raise ServeError(f"{self.user_code.name}: defines model_fn; expected predict_fn with it, to run that model")
        if self.user_code and ours and not self.defaults.has_artifact:
            raise ServeError(
                f"{self.user_code.name}: does not define {', '.join(ours)}, and the defaults need"
                f" {artifact.MODEL_JSON}, which is missing in {self.model_dir}"
            )

    def answer(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """The answers to some requests, which the graph computes in one batch where they are several."""
        self.defaults.deadline = time.perf_counter() + self.settings.timeout / 2
        calls = [Call(_alone(context, index), one.get("body") or b"") for index, one in enumerate(data)]
        if len(calls) > 1:
            self.defaults.predict_together(calls, self._model)
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Any:
        self._context, self.defaults.call = call.context, call
        try:
            answer, kind = self._response(call)
        except Exception as error:
            answer, kind = _failed(call.context, error), JSON
        call.context.set_response_content_type(0, kind)
        if call.seconds:
            timing = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in call.seconds.items())
            call.context.set_response_header(0, "Server-Timing", timing)
        return answer

    def _response(self, call: Call) -> tuple[Any, str]:
        """(body, content type)."""
        body: Any
        body, content_type = call.content
        accept = call.header("Accept")
        if not accept or accept == ANY:
            accept = self.settings.default_accept
        if not self.reads and content_type in UTF8_TYPES:  # which the toolkit hands on as text
            try:
                body = body.decode()
            except UnicodeDecodeError:
                raise RequestError(400, "InvalidText", f"the {content_type} body is not UTF-8") from None
        if self.staged:
            response = self._run_handler_function(self._output_fn, self._prediction(body, content_type), accept)
        else:
            response = self._run_handler_function(self._transform_fn, self._model, body, content_type, accept)
        return response if isinstance(response, tuple) else (response, accept)

    def _prediction(self, body: Any, content_type: str | None) -> Any:
        """Input and prediction; between our own functions some images of many at a time."""
        defaults, call, predictions = self.defaults, self.defaults.call, []
        if not (self.reads and defaults.writes):
            with call.timed("decode"):
                data = self._run_handler_function(self._input_fn, body, content_type)
            return self._predicted(data)
        with call.timed("decode"):
            request = defaults.read(body, content_type)
        for first in range(0, len(request.images), requests.MAX_INSTANCES):
            with call.timed("decode"):
                data = defaults.tensors(request, first)
            predictions.append(self._predicted(data))
        return np.concatenate(predictions) if len(predictions) > 1 else predictions[0]

    def _predicted(self, data: Any) -> Any:
        with self.defaults.call.timed("model"):
            return self._run_handler_function(self._predict_fn, data, self._model)


def _failed(context: Any, error: Exception) -> bytes:
    """The answer to a request that failed; what failed inside stays in the log."""
    request_id = context.get_request_header(0, REQUEST_ID)
    if isinstance(error, RequestError):
        LOG.debug("id=%s %s: %s", request_id, error.kind, error)
    elif isinstance(error, BaseInferenceToolkitError):  # a user's program said what to answer
        error = RequestError(error.status_code, type(error).__name__, str(error.message))
        LOG.warning("id=%s %s: %s", request_id, error.kind, error)
    else:
        LOG.error("id=%s failed", request_id, exc_info=error)
        message = f"the request failed inside the server; its log says more under the id {request_id}"
        error = RequestError(500, "InternalError", message)
    phrase = http.HTTPStatus(error.status).phrase if error.status in set(http.HTTPStatus) else "Error"
    context.set_response_status(error.status, phrase)
    return error.body()


def _alone(context: Any, index: int) -> Any:
    """The context of one request of several, in which it is the first."""
    alone = copy.copy(context)
    alone.request_processor = context.request_processor[index : index + 1]
    return alone
