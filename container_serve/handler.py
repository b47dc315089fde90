"""What multi-model-server calls in its workers: `handle(None, context)` to load the model, then once per request.

The user's functions (code/inference.py) and our defaults are put together by sagemaker-inference's Transformer.
"""

import copy
import http
import importlib
import inspect
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sagemaker_inference.errors import BaseInferenceToolkitError

from container_serve import artifact, codec, log, user_code
from container_serve.defaults import DefaultHandler
from container_serve.errors import RequestError, ServeError, error_body
from container_serve.processes import alive, die_with_parent
from container_serve.settings import LOAD_FAILURE, LOADING, MODELS, Settings
from container_serve.toolkit import Transformer, check_text

LOG = logging.getLogger("worker")
REQUEST_ID = "X-Request-Id"  # the front end puts it into every request
NO_USER_CODE = "container_serve.no_user_code"  # the name of no module: the Transformer then takes our defaults
FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn")

_parent = os.getpid()  # of the process that imports this, from which the workers are forked
_service: "Service | None" = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """multi-model-server's entry point."""
    global _service
    if data is None:
        _service = _load(context)
        return None
    assert _service is not None
    return _service.answer(data, context)


def _load(context: Any) -> "Service":
    """Load the model, or leave the process: an exception that is raised here would leave it half alive."""
    die_with_parent(_parent)
    # The model server's own handler goes on, without the socket on which the others' successors have to be asked for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    settings = Settings.read(os.environ)
    log.configure(settings.log_level)
    logging.getLogger("mms").setLevel(logging.WARNING)  # its metrics, a line per request
    begun = time.perf_counter()
    run = Path(os.environ["BYOC_RUN_DIRECTORY"])
    model_dir = (run / MODELS / context.model_name).resolve()
    context.system_properties["model_dir"] = str(model_dir)  # the model server knows an empty folder only
    loading = run / f"{LOADING}{os.getpid()}"
    try:
        with suppress(OSError):  # a full disk: it names who was killed while loading, no more
            loading.write_text(context.model_name)
        service = Service(settings, model_dir, context)
    except Exception as error:
        one_line = " ".join(str(error).split()) or type(error).__name__
        reason = one_line if isinstance(error, ServeError) else f"{model_dir}: {type(error).__name__}: {one_line}"
        LOG.error("cannot load the model: %s", reason, exc_info=not isinstance(error, ServeError))
        with suppress(OSError):  # a full disk: the log has the reason at least
            partial = loading.with_suffix(".failed")
            partial.write_text(reason)
            partial.replace(run / f"{LOAD_FAILURE}{context.model_name}")
            loading.unlink(missing_ok=True)
        sys.stdout.flush()
        os._exit(1)
    loading.unlink(missing_ok=True)
    _forget_failures(run, context.model_name)
    LOG.info("model loaded in %.2f s, %d thread(s)", time.perf_counter() - begun, settings.threads or 1)
    return service


def _forget_failures(run: Path, model: str) -> None:
    """What kept earlier workers from loading the model is over; left, it would explain the next trouble wrongly."""
    (run / f"{LOAD_FAILURE}{model}").unlink(missing_ok=True)
    for path in run.glob(f"{LOADING}*"):
        pid = path.name.removeprefix(LOADING)
        if pid.isdecimal() and not alive(int(pid)):
            path.unlink(missing_ok=True)


class Service(Transformer):  # type: ignore[misc]
    """One worker's model with its functions; answers one request at a time."""

    def __init__(self, settings: Settings, model_dir: Path, context: Any) -> None:
        self.settings = settings
        self.model_dir = model_dir
        self.seconds: dict[str, float] = {}
        self.parameters: dict[Any, int] = {}  # how many each of the functions takes
        self.user_code = user_code.find(settings, model_dir)
        self.defaults = DefaultHandler(settings, model_dir, optional=self.user_code is not None)
        super().__init__(self.defaults)
        if self.user_code is not None:
            sys.path.insert(0, str(self.user_code.directory))
            os.chdir(model_dir)  # where such programs look for their files
            LOG.info("own program: %s", self.user_code.directory / f"{self.user_code.module}.py")
        # The Transformer looks for the module of this name.
        os.environ["SAGEMAKER_PROGRAM"] = self.user_code.module if self.user_code else NO_USER_CODE
        self.validate_and_initialize(str(model_dir), context)

    def _validate_user_module_and_set_functions(self) -> None:
        super()._validate_user_module_and_set_functions()
        ours = self._transform_fn == self._default_transform_fn
        self.reads = ours and self._input_fn == self.defaults.default_input_fn
        self.defaults.writes = ours and self._output_fn == self.defaults.default_output_fn
        if self.user_code is None:
            return
        module = importlib.import_module(self.user_code.module)
        given = {name for name in (*FUNCTIONS, "transform_fn") if hasattr(module, name)}
        name = f"{self.user_code.module}.py"
        if "transform_fn" in given:
            given |= set(FUNCTIONS) - {"model_fn"}
        if "model_fn" in given and "predict_fn" not in given:
            raise user_code.UserCodeError(f"{name}: defines model_fn; expected predict_fn with it, to run that model")
        missing = [function for function in FUNCTIONS if function not in given]
        if missing and self.defaults.artifact is None:
            raise user_code.UserCodeError(
                f"{name}: does not define {', '.join(missing)}, and the defaults need {artifact.MODEL_JSON},"
                f" which is missing in {self.model_dir}"
            )

    def _run_handler_function(self, func: Any, *argv: Any) -> Any:
        """Call one of the functions, with the context where it takes that: the Transformer looks that up each time."""
        if func not in self.parameters:
            self.parameters[func] = len(inspect.signature(func).parameters)
        begun = time.perf_counter()
        try:
            if self.parameters[func] == len(argv) + 1:
                return func(*argv, self._context)
            return func(*argv)
        finally:
            for name, known in (("decode", self._input_fn), ("model", self._predict_fn)):
                if func == known:
                    self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - begun

    def _default_transform_fn(
        self, model: Any, body: Any, content_type: str | None, accept: str, context: Any = None
    ) -> Any:
        """The functions one after the other; of a body of many lines for some of them at a time."""
        function = super()._default_transform_fn
        if not (self.reads and self.defaults.writes):
            return function(model, body, content_type, accept)
        parts = codec.groups(body.encode() if isinstance(body, str) else bytes(body), content_type)
        self.defaults.parts = len(parts)
        answers = []
        for number, part in enumerate(parts):
            self.defaults.first = number * codec.MAX_INSTANCES
            answers.append(function(model, part, content_type, accept))
        return b"\n".join(answer for answer, _ in answers), answers[0][1]

    def answer(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """The answers to some requests, which the graph computes in one batch where they are several."""
        # The caller has its answer (504) by then; ending the process is what ends any computation for sure.
        signal.setitimer(signal.ITIMER_REAL, self.settings.timeout + 1)
        self.defaults.last = time.perf_counter() + self.settings.timeout / 2
        try:
            contexts = [_alone(context, index) for index in range(len(data))]
            if len(data) > 1:
                self.defaults.predict_ahead(data, contexts, self._model)
            return [self._answer(one, alone) for one, alone in zip(data, contexts, strict=True)]
        finally:
            self.defaults.ahead.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _answer(self, data: dict[str, Any], context: Any) -> Any:
        self.seconds.clear()
        self._context = context
        try:
            check_text(data.get("body"), context, ours=self.reads)
            (answer,) = self.transform([data], context)
        except RequestError:
            (answer,) = self.handle_error(context, None, "")
        ahead = self.defaults.ahead.get(id(context))
        timing = self.seconds | (ahead.seconds if ahead else {})
        if timing:
            value = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timing.items())
            context.set_response_header(0, "Server-Timing", value)
        return answer

    @staticmethod
    def handle_error(context: Any, inference_exception: Exception | None, trace: str) -> list[bytes]:
        """The answer to a request that failed; what failed inside stays in the log."""
        error = sys.exc_info()[1]  # the original: the Transformer wraps what it does not know
        request_id = context.get_request_header(0, REQUEST_ID)
        if isinstance(error, RequestError):
            status, kind, message = error.status, error.kind, str(error)
            LOG.debug("id=%s %s: %s", request_id, kind, message)
        elif isinstance(error, BaseInferenceToolkitError):  # a user's program said what to answer
            status, kind, message = error.status_code, type(error).__name__, str(error.message)
            LOG.warning("id=%s %s: %s", request_id, kind, message)
        else:
            status, kind = 500, "InternalError"
            message = f"the request failed inside the server; its log says more under the id {request_id}"
            LOG.error("id=%s failed", request_id, exc_info=error)
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Error"
        context.set_response_status(status, phrase)
        context.set_response_content_type(0, codec.JSON)
        return [error_body(status, kind, message)]


def _alone(context: Any, index: int) -> Any:
    """The context of one request of several, in which it is the first."""
    alone = copy.copy(context)
    alone.request_processor = context.request_processor[index : index + 1]
    return alone
