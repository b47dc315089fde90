"""AWS as it is on a bad day: moto's server behind a WSGI layer that is slow, breaks connections and throttles.

Moto makes everything at once, overwrites what exists, and lacks UpdateEndpoint and the Stop operations of jobs. This
layer adds the service's rules for them. It works on moto's own objects, so that Describe*, List* and Delete* agree.
One choice where the documentation only warns: an endpoint whose configuration is deleted while it is created or updated
becomes Failed, the worst that can happen.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sagemaker.models import sagemaker_backends
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

from tests.cloud.wire import answer, answer_throttled, drop, parts, recognise, signed_for

ACCOUNT = "123456789012"  # moto's own
PATIENCE_SECONDS = 60.0  # that a request hangs at most


@dataclass(frozen=True)
class Kind:
    """A resource that takes time: moto's table of them, the attribute of their status, and the words for it."""

    table: str
    status: str
    making: str = "InProgress"
    made: str = "Completed"


SLOW = {
    "Endpoint": Kind("endpoints", "endpoint_status", "Creating", "InService"),
    "TrainingJob": Kind("training_jobs", "training_job_status"),
    "HyperParameterTuningJob": Kind("hyper_parameter_tuning_jobs", "hyper_parameter_tuning_job_status"),
    "TransformJob": Kind("transform_jobs", "transform_job_status"),
}
# Moto's tables of what cannot be created twice under one name, and the service's words for it.
UNIQUE = {
    "Model": ("_models", "model"),
    "EndpointConfig": ("endpoint_configs", "endpoint configuration"),
    "Endpoint": ("endpoints", "endpoint"),
    "TrainingJob": ("training_jobs", ""),
    "TransformJob": ("transform_jobs", ""),
}


class ServiceError(Exception):
    def __init__(self, message: str, code: str = "ValidationException") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Change:
    """The state that a resource reaches after `polls` more calls of its Describe operation."""

    polls: int
    end: Callable[[], None]


class FlakyAws:
    """The WSGI application. Without being told otherwise it does everything at once and without a fault."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.RLock()
        self._gate = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget what was told, and what is in progress; moto's own state is not touched."""
        self.calls: list[str] = []  # the operations that arrived, in order
        self.requests: dict[str, dict[str, Any]] = {}  # the last one of each operation
        self.prediction: dict[str, Any] = {"predictions": [], "model": {}}  # of endpoints: moto takes no pictures
        # Answers requests to endpoints in place of `prediction`: status, headers, body.
        self.runtime: Callable[[str, WSGIEnvironment], tuple[int, dict[str, str], bytes]] | None = None
        self._polls = 0
        self._failure: str | None = None
        self._changes: dict[tuple[str, str], _Change] = {}
        self._faults: Counter[tuple[str, str]] = Counter()
        self._gate.set()  # what hangs still is given up
        self._gate = threading.Event()
        # What happens once before or after an operation, by anybody else.
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.components: dict[str, str] = {}  # inference components, which moto lacks: their models by their names

    # What a test tells it

    def slow(self, polls: int, failure: str | None = None) -> None:
        """From now on creating, updating, stopping and deleting last for `polls` Describe calls of the resource.

        With `failure`, what is created or updated fails for this reason.
        """
        self._polls, self._failure = polls, failure

    def _tell(self, fault: str, operation: str, times: int = 1) -> None:
        """The next `times` requests of this operation meet the fault."""
        self._faults[fault, operation] += times

    break_before = partialmethod(_tell, "before")  # nothing is done, and the connection closed
    break_after = partialmethod(_tell, "after")  # performed, and the connection closed without an answer
    throttle = partialmethod(_tell, "throttle")  # refused, as the service does under load
    fail_after = partialmethod(_tell, "error")  # performed, and the answer is that the service has failed
    hang = partialmethod(_tell, "hang")  # performed, and no answer given
    delay = partialmethod(_tell, "late")  # no answer; the first of them is performed when `catch_up` is called

    def catch_up(self) -> None:
        self._gate.set()

    # WSGI

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        operation, request = recognise(environ)
        self.calls.append(operation)
        self.requests[operation] = request
        if happens := self.before.pop(operation, None):
            happens()
        if self._hits("before", operation):
            drop(environ)
        if self._hits("throttle", operation):
            return answer_throttled(environ, start_response)
        if self._hits("late", operation):
            self._wait(environ)
        elif self._hits("hang", operation):
            self._perform_silently(operation, request, environ)
            self._gate.wait(PATIENCE_SECONDS)
            drop(environ)
        if self._hits("error", operation):
            self._perform_silently(operation, request, environ)
            return answer(start_response, 500, {"__type": "InternalFailure", "message": "Internal error"})
        if self._hits("after", operation):
            self._perform_silently(operation, request, environ)
            drop(environ)
        content = self._perform(operation, request, environ, start_response)
        if happens := self.after.pop(operation, None):
            happens()
        return content

    def _perform_silently(self, operation: str, request: dict[str, Any], environ: WSGIEnvironment) -> None:
        run_wsgi_app(lambda *arguments: self._perform(operation, request, *arguments), environ, buffered=True)

    def _wait(self, environ: WSGIEnvironment) -> None:
        """Until the test says so; what hangs when the test has ended is never performed."""
        gate = self._gate
        if not gate.wait(PATIENCE_SECONDS) or gate is not self._gate:
            drop(environ)

    def _hits(self, fault: str, operation: str) -> bool:
        with self._lock:
            left = self._faults[fault, operation]
            self._faults[fault, operation] = max(left - 1, 0)
            return left > 0

    def _perform(
        self, operation: str, request: dict[str, Any], environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        region, service = signed_for(environ)
        if operation == "GetDownloadUrlForLayer":  # moto lacks it, and its 500 would be tried again for a minute
            return answer(start_response, 400, {"__type": "AccessDeniedException", "message": "Access denied"})
        if service != "sagemaker":
            return self._moto(environ, start_response)  # type: ignore[no-any-return]
        backend = sagemaker_backends[ACCOUNT][region]
        if self.runtime and operation.startswith("InvokeEndpoint"):
            status, said, body = self.runtime(operation, environ)
            start_response(f"{status} -", [*said.items(), ("Content-Length", str(len(body)))])
            return [body]
        with self._lock:
            try:
                if operation == "InvokeEndpoint":
                    _need_serving(environ["PATH_INFO"].split("/")[2], backend)
                    return answer(start_response, 200, self.prediction)
                own = self._before(operation, request, backend)
            except ServiceError as error:
                return answer(start_response, 400, {"__type": error.code, "message": str(error)})
            if own is not None:
                return answer(start_response, 200, own)
            content, code, headers = run_wsgi_app(self._moto, environ, buffered=True)
            if code.startswith("200"):
                self._after(operation, request, backend)
        start_response(code, list(headers))
        return content

    # The service's rules

    def _before(self, operation: str, request: dict[str, Any], backend: Any) -> dict[str, Any] | None:
        """Moto's part is left out where this answers. Raises ServiceError for what the service refuses."""
        verb, noun, name = parts(operation, request)
        if verb == "Create" and noun in UNIQUE:
            _need_unique(noun, name, backend)
        if operation == "ListTrainingJobsForHyperParameterTuningJob":
            return {"TrainingJobSummaries": []}
        if operation == "ListInferenceComponents":
            return {"InferenceComponents": [{"InferenceComponentName": name} for name in self.components]}
        if operation == "DescribeInferenceComponent":
            return {"InferenceComponentName": name, "Specification": {"ModelName": self.components[name]}}
        if operation == "DeleteModelPackage":  # moto lacks both
            del backend.model_packages[name]
            return {}
        if operation == "DeleteModelPackageGroup":
            if any(one.model_package_group_name == name for one in backend.model_packages.values()):
                raise ServiceError("Model package group cannot be deleted as it has packages.", "ConflictException")
            del backend.model_package_groups[name]
            return {}
        if noun not in SLOW:
            return None
        thing = getattr(backend, SLOW[noun].table).get(name)
        if verb == "Describe":
            self._poll(noun, name)
        elif operation == "UpdateEndpoint":
            _need_idle(thing, name)
            self._update(thing, request["EndpointConfigName"], backend, bool(request.get("RetainAllVariantProperties")))
            return {"EndpointArn": thing.arn}
        elif operation == "DeleteEndpoint" and thing is not None:
            _need_idle(thing, name)
            if self._polls:
                thing.endpoint_status = "Deleting"
                self._begin(noun, name, lambda: backend.delete_endpoint(name))
                return {}
        elif verb == "Stop":
            self._stop(noun, name, thing)
            return {}
        return None

    def _after(self, operation: str, request: dict[str, Any], backend: Any) -> None:
        """Take back to its beginning what moto has made at once."""
        verb, noun, name = parts(operation, request)
        if verb != "Create" or noun not in SLOW:
            return
        kind, failure = SLOW[noun], self._failure
        thing = getattr(backend, kind.table)[name]

        def end() -> None:
            reason = failure
            if noun == "Endpoint" and thing.endpoint_config_name not in backend.endpoint_configs:
                reason = "its endpoint configuration was deleted meanwhile"
            _set_status(kind, thing, "Failed" if reason else kind.made)
            thing.failure_reason = reason

        _set_status(kind, thing, kind.making)
        if noun == "TrainingJob":
            thing.algorithm_specification = request["AlgorithmSpecification"]  # moto has metrics of its own
        self._begin(noun, name, end)

    def _update(self, endpoint: Any, configuration: str, backend: Any, retain: bool) -> None:
        """Roll back an update that fails: the endpoint serves the old configuration, and says why."""
        if configuration not in backend.endpoint_configs:
            raise ServiceError(f'Could not find endpoint configuration "{configuration}".')
        failure = self._failure

        def end() -> None:
            endpoint.pending_deployment_summary = None
            endpoint.failure_reason = failure
            endpoint.endpoint_status = "InService"
            if configuration not in backend.endpoint_configs:
                endpoint.endpoint_status = "Failed"
                endpoint.failure_reason = "its endpoint configuration was deleted meanwhile"
            elif not failure:
                endpoint.endpoint_config_name = configuration
                if not retain:
                    variants = backend.endpoint_configs[configuration].production_variants
                    endpoint.production_variants = endpoint._process_production_variants(variants)

        def roll_back() -> None:
            endpoint.endpoint_status = "RollingBack"
            self._begin("Endpoint", endpoint.endpoint_name, end, 1)

        endpoint.endpoint_status = "Updating"
        endpoint.pending_deployment_summary = {"EndpointConfigName": configuration}
        self._begin("Endpoint", endpoint.endpoint_name, roll_back if failure and self._polls else end)

    def _stop(self, noun: str, name: str, job: Any) -> None:
        kind = SLOW[noun]
        if job is None:
            raise ServiceError(f"Requested resource not found: {name}.")
        status = getattr(job, kind.status)
        if status != kind.making:
            raise ServiceError(f"The request was rejected because the job is in status {status}.")
        _set_status(kind, job, "Stopping")
        self._begin(noun, name, lambda: _set_status(kind, job, "Stopped"))

    def _begin(self, noun: str, name: str, end: Callable[[], None], polls: int | None = None) -> None:
        left = self._polls if polls is None else polls
        if left:
            self._changes[noun, name] = _Change(left, end)
        else:
            end()

    def _poll(self, noun: str, name: str) -> None:
        change = self._changes.get((noun, name))
        if change and change.polls:
            change.polls -= 1
        elif change:
            del self._changes[noun, name]
            change.end()
            self._poll(noun, name)  # of a stage that follows this is the first one


def _need_unique(noun: str, name: str, backend: Any) -> None:
    table, words = UNIQUE[noun]
    if name not in getattr(backend, table):
        return
    if words:
        raise ServiceError(f'Cannot create already existing {words} "{name}".')
    raise ServiceError(f"Job name must be unique, and a job with this name already exists ({name})", "ResourceInUse")


def _need_idle(endpoint: Any, name: str) -> None:
    if endpoint is None:
        raise ServiceError(f'Could not find endpoint "{name}".')
    if endpoint.endpoint_status not in ("InService", "Failed"):
        raise ServiceError(f'Cannot update in-progress endpoint "{endpoint.arn}".')


def _need_serving(name: str, backend: Any) -> None:
    """The runtime says the same of an endpoint that is missing and of one that is not ready."""
    endpoint = backend.endpoints.get(name)
    if endpoint is None or endpoint.endpoint_status in ("Creating", "Deleting", "Failed"):
        raise ServiceError(f"Endpoint {name} of account {ACCOUNT} not found.", "ValidationError")


def _set_status(kind: Kind, thing: Any, status: str) -> None:
    setattr(thing, kind.status, status)
    if kind.table == "training_jobs":
        thing.secondary_status = "Training" if status == "InProgress" else status


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    def log_request(self, *_: object) -> None:
        """Say nothing: every test that fails would show hundreds of lines."""


@contextmanager
def serve(application: FlakyAws) -> Iterator[str]:
    """On loopback, in a thread of its own; the URL."""
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
