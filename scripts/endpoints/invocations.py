"""Requests to a server: at a SageMaker endpoint, or at a URL on this machine. Both answer in the same form."""

import json
import re
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)

from local_test.errors import reason
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of, explain, is_throttled, message_of, one_line
from scripts.endpoints import lookup
from scripts.endpoints.modes import SERVERLESS, SERVERLESS_REQUEST_BYTES

if TYPE_CHECKING:  # it imports numpy and Pillow, which whoever only mistyped a flag should not wait for
    from scripts.endpoints.images import Body

JSON = "application/json"
TIMEOUT_SECONDS = 65  # the platform gives up after 60
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before another try of what was certainly not computed
_NOT_READY = "ModelNotReadyException"  # instances or a model are being loaded, says the platform
# What the service says of one request; anything else it would say of the next one too.
_PASSING = {"ServiceUnavailable", "InternalFailure", "InternalServerException", "InternalDependencyException"}
_PAGE = re.compile(r"\s*(<!doctype html|<html|<head|<\?xml|<!--)", re.IGNORECASE)


Answer = tuple[dict[str, Any], float]  # the document, and milliseconds of the one try that was answered
MODEL_SUFFIX = ".tar.gz"  # of the objects of several models
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")  # as the server's /models takes a name


def model_name(name: str, flag: str) -> str:
    """Return the name of one of several models, without .tar.gz. Raises CloudError."""
    if not _MODEL.match(name) or name.endswith(MODEL_SUFFIX):
        raise CloudError(f"{flag} has value {name!r}: expected at most 200 letters, digits, dots, - and _", 2)
    return name


class InvocationError(Exception):
    """The server's or the platform's answer to this one request, in one line."""


@dataclass(frozen=True)
class Result:
    """One image's answer, or `error` why there is none; `milliseconds` from sending it to its answer."""

    image: str
    answer: dict[str, Any] | None
    error: str | None
    notice: str | None
    milliseconds: float | None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"image": self.image}
        if self.answer is not None:
            found |= {"predictions": self.answer["predictions"], "model": self.answer.get("model")}
            found["milliseconds"] = self.milliseconds
        else:
            found["error"] = self.error
        return found | ({"notice": self.notice} if self.notice else {})


class EndpointTarget:
    """`model`: which one, of an endpoint that has several.

    `invoke` raises InvocationError for this request alone, CloudError or botocore's errors for all of them.
    """

    def __init__(self, aws: Aws, name: str, model: str | None = None) -> None:
        self.aws, self.name = aws, name
        self.more = {"TargetModel": f"{model}{MODEL_SUFFIX}"} if model else {}
        self.client = aws.client("sagemaker-runtime")

    def limit(self) -> int | None:
        """Return the largest body that it takes, in bytes; None if that is as usual."""
        try:
            endpoint = lookup.find(self.aws, self.name)
            configuration = lookup.configuration(self.aws, endpoint.configuration) if endpoint else None
        except ClientError:  # whoever may only invoke it gets to know what the runtime says
            return None
        return SERVERLESS_REQUEST_BYTES if configuration and configuration.mode == SERVERLESS else None

    def invoke(self, body: "Body", identifier: str, top_k: int) -> Answer:
        for pause in (*PAUSES, None):
            begun = time.monotonic()
            try:
                content = self._ask(body, identifier, top_k)
            except ClientError as error:
                computed = not is_throttled(error) and code_of(error) != _NOT_READY
                if computed or pause is None:
                    raise self.judged(error) from None
            except (EndpointConnectionError, ConnectTimeoutError):  # nothing was sent
                if pause is None:
                    raise
            except ReadTimeoutError:
                raise InvocationError("no answer within 60 s") from None
            except (HTTPClientError, IncompleteReadError) as error:
                raise InvocationError(f"the connection broke before the answer: {one_line(str(error))}") from None
            else:
                return parsed(content), _since(begun)
            time.sleep(pause)
        raise AssertionError  # the last try returns or raises

    def _ask(self, body: "Body", identifier: str, top_k: int) -> bytes:
        answer = self.client.invoke_endpoint(
            EndpointName=self.name,
            ContentType=body.content_type,
            Accept=JSON,
            CustomAttributes=f"top_k={top_k}",
            InferenceId=identifier,
            Body=body.content,
            **self.more,
        )
        content: bytes = answer["Body"].read()
        return content

    def judged(self, error: ClientError) -> Exception:
        """Return what to raise for an error of the runtime."""
        code = code_of(error)
        if code == "ModelError":
            status = error.response.get("OriginalStatusCode", "")
            return InvocationError(complaint(status, str(error.response.get("OriginalMessage") or message_of(error))))
        if code in _PASSING:
            return InvocationError(f"{code}: {message_of(error)}")
        if code in {"ValidationError", "ValidationException"}:
            return self._state(error)
        unchanged: Exception = error
        return unchanged

    def _state(self, error: ClientError) -> Exception:
        """Return the endpoint's state in words: the runtime says the same of one that is missing and one not ready."""
        try:
            endpoint = lookup.find(self.aws, self.name)
        except ClientError:  # whoever may only invoke it gets to know what the runtime said
            return explain(error)
        region = self.aws.region
        if endpoint is None:
            return CloudError(f"there is no endpoint {self.name} in {region}: check the name and --region")
        if endpoint.status != "InService":
            return CloudError(
                f"the endpoint {self.name} is {endpoint.status}"
                + (f": {endpoint.failure}" if endpoint.failure else "")
                + f"; wait for it with scripts/deploy.py --attach {self.name} --region {region}"
            )
        return explain(error)


class LocalTarget:
    """A server at `url`, which may or may not end in /invocations; `model` as of an EndpointTarget."""

    def __init__(self, url: str, model: str | None = None) -> None:
        base = url if "://" in url else f"http://{url}"
        try:
            parts = urllib.parse.urlsplit(base)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # of a port, or half an IPv6 address
            right = False
        if not right or not base.isprintable() or " " in base:
            raise CloudError(f"--local has value {url!r}: expected a URL such as http://localhost:8080", 2)
        path = f"/models/{model}/invoke" if model else "/invocations"
        self.url = base.rstrip("/").removesuffix("/invocations") + path

    def limit(self) -> int | None:
        return None

    def invoke(self, body: "Body", identifier: str, top_k: int) -> Answer:
        headers = {
            "Content-Type": body.content_type,
            "Accept": JSON,
            "X-Amzn-SageMaker-Custom-Attributes": f"top_k={top_k}",
            "X-Amzn-SageMaker-Inference-Id": identifier,
        }
        begun = time.monotonic()
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy knows nothing of this machine
                answer = session.post(self.url, body.content, headers=headers, timeout=TIMEOUT_SECONDS)
        except requests.Timeout:
            raise InvocationError(f"no answer within {TIMEOUT_SECONDS} s") from None
        except requests.RequestException as error:
            cause = getattr(error.args[0] if error.args else None, "reason", None) or error  # urllib3's, in requests'
            said = reason(cause).rpartition(": ")[2]
            start = "start one with scripts/deploy.py --local or local_test/serve_local.sh"
            raise CloudError(f"no server answers at {self.url} ({said}): correct the URL, or {start}") from None
        if not answer.ok:
            raise InvocationError(complaint(answer.status_code, answer.content.decode(errors="replace")))
        return parsed(answer.content), _since(begun)


Target = EndpointTarget | LocalTarget


def _since(begun: float) -> float:
    """Return the milliseconds since then."""
    return round((time.monotonic() - begun) * 1000, 1)


def parsed(content: bytes) -> dict[str, Any]:
    """Return an answer's document. Raises InvocationError for one that is not of this project's form."""
    try:
        answer: dict[str, Any] = json.loads(content)
        for row in answer["predictions"]:
            str(row["label"]), float(row["probability"])
    except (ValueError, KeyError, TypeError):
        raise InvocationError(f"the answer is not of this project's form: {one_line(repr(content[:80]))}") from None
    return answer


def complaint(status: object, text: str) -> str:
    """A container's error, whose body is JSON with a code and a message."""
    try:
        body = json.loads(text)
        said = f"{body['type']}: {body['message']}" if isinstance(body, Mapping) else text
    except (ValueError, KeyError):
        said = "a web page, not JSON" if _PAGE.match(text) else text
    return one_line(f"{status} {said}")[:500]
