"""The bodies of requests."""

import binascii
import json
import re
import string
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from container_serve.codec.media import JSON, JSON_LINES, LINE_TYPES, media_type, unsupported
from container_serve.errors import RequestError, shown

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000
MAX_INSTANCES = 64  # of a JSON body, and images that are computed at a time
MAX_LINES = 10_000
MAX_CLASSES = MAX_INSTANCES * MAX_TOP_K  # in an answer
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|BM|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|....ftyp(?:avi|hei|mif)",
    re.DOTALL,
)
# Base64 holds no brackets and no commas: a body with more of them is refused before it is built up in memory.
_MAX_STRUCTURE = 1000
_MAX_LINE_STRUCTURE = 10

EncodedImage = bytes | RequestError  # an image file, or why it cannot be read


@dataclass(frozen=True)
class Request:
    """Encoded images, how many classes to answer for each.

    `batched`: they came as a list (instances, or lines), and are answered with one; one that cannot be read has its
    error there, in which `place` names it. `answer`: the type of the answer to a caller who accepts any.
    """

    images: tuple[EncodedImage, ...]
    top_k: int
    batched: bool
    answer: str = JSON

    def place(self, index: int) -> str:
        """The place of an image in the body, for messages."""
        return f"line {index + 1}" if self.answer == JSON_LINES else f"instances[{index}]"


def parse(
    body: bytes, content_type: str | None, custom_attributes: str | None = None, max_lines: int = MAX_LINES
) -> Request:
    """Read a request.

    `content_type` may be absent or empty: a body that begins like an image is then taken as one.
    `custom_attributes` is the header X-Amzn-SageMaker-Custom-Attributes, of which `top_k=N` counts.

    Raises RequestError 400 for a body or an attribute that is wrong, 415 for a type that is not taken.
    """
    kind = media_type(content_type)
    if not kind and body and not _MAGIC.match(body):
        raise unsupported("there is no content type")
    if not body:
        raise RequestError(400, "EmptyBody", "the body is empty: send an image, or JSON with instances")
    if kind == JSON:
        images, top_k = _parse_json(body)
        return Request(images, top_k or _attribute_top_k(custom_attributes), True)
    top_k = _attribute_top_k(custom_attributes)
    if kind not in LINE_TYPES:
        return Request((body,), top_k, False)
    if (count := body.count(b"\n") + (not body.endswith(b"\n"))) > max_lines:
        raise RequestError(400, "TooManyLines", f"the body has {count} lines: send at most {max_lines} at a time")
    # Each is a record with an answer of its own, an empty one too; the last may end with a line feed.
    lines = body.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    if len(lines) * top_k > MAX_CLASSES:
        raise _wrong_top_k(f"expected at most {MAX_CLASSES // len(lines)} for so many lines")
    return Request(tuple(map(_line, lines)), top_k, True, JSON_LINES)


def _line(line: bytes) -> EncodedImage:
    """The image of `{"b64": "..."}`, or of a whole body with one instance, as the service sends single records."""
    try:
        document = _document(line, _MAX_LINE_STRUCTURE, "")
        if isinstance(document, dict) and "instances" in document:
            instances = document["instances"]
            if not isinstance(instances, list) or len(instances) != 1 or len(document) != 1:
                _bad('expected {"b64": "..."}, or {"instances": [...]} with one instance and no other key')
            document = instances[0]
        return _instance(document, "")
    except RequestError as error:
        return error


def _document(body: bytes, structure: int, what: str = "the JSON body ") -> Any:
    values = np.frombuffer(body, np.uint8)  # five times as fast as bytes.count
    if sum(np.count_nonzero(values == sign) for sign in b"{[,") > structure:
        _bad(f"{what}is too deep or has too many values, at most {MAX_INSTANCES} instances are taken")
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_object)
    except UnicodeDecodeError:
        _bad(f"{what}is not UTF-8", "InvalidText")
    except json.JSONDecodeError as error:
        lines = f" (records by lines are {JSON_LINES})" if error.msg == "Extra data" else ""
        _bad(f"{what}is not JSON: {error.msg} at line {error.lineno} column {error.colno}{lines}")
    except RecursionError:
        _bad(f"{what}is too deep")
    except ValueError:  # a whole number of thousands of digits
        _bad(f"{what}holds a number that cannot be read")


def _parse_json(body: bytes) -> tuple[tuple[EncodedImage, ...], int | None]:
    document = _document(body, _MAX_STRUCTURE)
    if not isinstance(document, dict):
        _bad(f'the JSON body has to be an object {{"instances": [{{"b64": "..."}}]}}, got {shown(document)}')
    if unknown := [key for key in document if key not in ("instances", "top_k")]:
        _bad(f"the JSON body has the unknown key {shown(unknown[0])}, expected instances and top_k")
    if "instances" not in document:
        _bad('the JSON body lacks the key "instances"')
    instances = document["instances"]
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        got = f"{len(instances)} of them" if isinstance(instances, list) else shown(instances)
        _bad(f"instances: expected a list of 1 to {MAX_INSTANCES} instances, got {got}")
    images = tuple(_instance(instance, f"instances[{i}]: ") for i, instance in enumerate(instances))
    return images, _top_k(document["top_k"]) if "top_k" in document else None


def _instance(instance: object, where: str) -> EncodedImage:
    """Raises RequestError for what is no instance at all; an image that cannot be read concerns itself alone."""
    if not isinstance(instance, dict):
        _bad(f'{where}expected {{"b64": "..."}}, got {shown(instance)}')
    if unknown := [key for key in instance if key != "b64"]:
        _bad(f'{where}has the unknown key {shown(unknown[0])}, expected "b64"')
    try:
        return _decoded(instance.get("b64"))
    except RequestError as error:
        return error


def _decoded(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        _bad(f"b64: expected an image in base64, got {shown(text)}")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            _bad(f"b64: expected a data: URL in base64, got {shown(head)}")
    if any(space in text for space in string.whitespace):  # many encoders break lines, as mail wants it
        text = "".join(text.split())
    try:
        image = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also: characters that are not ASCII
        _bad("b64: is not base64 (standard alphabet, padded)")
    if not image:
        _bad("b64: the image is empty")
    return image


def _attribute_top_k(attributes: str | None) -> int:
    for pair in re.split("[,;]", attributes or ""):
        key, _, value = pair.partition("=")
        if key.strip().lower() == "top_k":
            text = value.strip()
            return _top_k(int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text)
    return DEFAULT_TOP_K


def _top_k(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_TOP_K:
        raise _wrong_top_k(f"expected a whole number from 1 to {MAX_TOP_K}, got {shown(value)}")
    return value


def _wrong_top_k(reason: str) -> RequestError:
    return RequestError(400, "InvalidTopK", f"top_k: {reason}")


def _bad(message: str, kind: str = "InvalidJSON") -> NoReturn:
    raise RequestError(400, kind, message) from None


def _no_constant(name: str) -> NoReturn:
    _bad(f"the JSON holds {name}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            _bad(f"the JSON has the key {shown(key)} twice")
        document[key] = value
    return document
