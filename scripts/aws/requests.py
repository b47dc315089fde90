"""A request to AWS as data: built first, checked against the service's own model, then shown or sent."""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import ClientError

from scripts.aws.account import Aws, loader
from scripts.aws.errors import CloudError, is_missing

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

MAX_INTEGER = 2**31 - 1  # of the services' type integer


@dataclass(frozen=True)
class Request:
    """`service` and `operation` as botocore names them: sagemaker, CreateTrainingJob."""

    service: str
    operation: str
    request: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.service} {self.operation}"


@functools.cache
def model(service: str) -> "ServiceModel":
    from botocore.model import ServiceModel

    return ServiceModel(loader().load_service_model(service, "service-2"), service)


def check(request: Request, *, allow_unknown: bool = False) -> None:
    """Raises CloudError with everything that the service's model (types, keys, lengths, patterns, words) refuses.

    With `allow_unknown` any word is good: the service may know more instance types than botocore here.
    """
    from botocore.validate import ParamValidator

    shape = model(request.service).operation_model(request.operation).input_shape
    if shape is None:
        return
    report = ParamValidator().validate(request.request, shape)
    problems = [report.generate_report()] if report.has_errors() else list(_beyond(request.request, shape, ""))
    if allow_unknown:
        problems = [problem for problem in problems if not isinstance(problem, _UnknownWord)]
    if problems:
        raise CloudError(f"{request} would be refused: {'; '.join(problems)}".replace("\n", "; "), 2)


def show(requests: Sequence[Request], *, allow_unknown: bool = False) -> str:
    """The JSON array of --dry-run, every request checked."""
    for request in requests:
        check(request, allow_unknown=allow_unknown)
    return json.dumps([asdict(request) for request in requests], indent=2, default=str)


def send(aws: Aws, request: Request) -> dict[str, Any]:
    """Check and send it; the service's answer. Raises CloudError or botocore's errors."""
    check(request, allow_unknown=aws.allow_unknown)
    answer: dict[str, Any] = getattr(aws.client(request.service), xform_name(request.operation))(**request.request)
    return answer


def describe(aws: Aws, noun: str, name: str) -> dict[str, Any] | None:
    """Describe a resource of SageMaker (`noun` as in DescribeEndpoint); None where there is none of this name."""
    try:
        found: dict[str, Any] = getattr(aws.client("sagemaker"), xform_name(f"Describe{noun}"))(**{f"{noun}Name": name})
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return found


def need(aws: Aws, noun: str, name: str, what: str) -> dict[str, Any]:
    """Describe a resource that has to be there; `what` it is, for people. Raises CloudError."""
    found = describe(aws, noun, name)
    if found is None:
        raise CloudError(f"there is no {what} {name} in {aws.region}: check the name and --region")
    return found


class _UnknownWord(str):
    """A problem that may be none for a service that is newer than its model here."""


def _beyond(value: Any, shape: "Shape", path: str) -> Iterator[str]:
    """The checks that botocore leaves to the service: upper limits, patterns, enumerations."""
    if shape.type_name == "structure":
        for key, item in value.items():
            if key in shape.members:
                yield from _beyond(item, shape.members[key], f"{path}.{key}".lstrip("."))
    elif shape.type_name == "list":
        yield from _too_long(value, shape, path)
        for index, item in enumerate(value):
            yield from _beyond(item, shape.member, f"{path}[{index}]")
    elif shape.type_name == "map":
        yield from _too_long(value, shape, path)
        for key, item in value.items():
            yield from _beyond(key, shape.key, f"{path} key {key!r}")
            yield from _beyond(item, shape.value, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _too_long(value, shape, path)
        pattern = _compiled(shape.metadata.get("pattern", ""))
        if pattern and not pattern.fullmatch(value):
            yield f"{path} has value {value!r}: expected {pattern.pattern}"
        words = shape.metadata.get("enum", [])
        if words and value not in words:
            close = get_close_matches(value, words, n=3)
            few = f"expected {', '.join(words[:8])}{' ...' if len(words) > 8 else ''}"
            hint = f"did you mean {', '.join(close)}" if close else few
            yield _UnknownWord(f"{path} has value {value!r}: {hint} (--allow-unknown sends it all the same)")
    elif shape.type_name in ("integer", "long"):
        high = shape.metadata.get("max", MAX_INTEGER if shape.type_name == "integer" else value)
        if value > high:
            yield f"{path} has value {value}: expected at most {high}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None  # Java's \p{...}, say: left to the service


def _too_long(value: Any, shape: "Shape", path: str) -> Iterator[str]:
    high = shape.metadata.get("max")
    if high is not None and len(value) > high:
        yield f"{path} has length {len(value)}: expected at most {high}"
