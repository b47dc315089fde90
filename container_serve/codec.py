"""The bodies of requests and answers."""

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from container_serve.errors import RequestError, error_document
from container_serve.predictor import Prediction

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000
MAX_INSTANCES = 64  # of a JSON body, and lines that are computed at a time
MAX_LINES = 10_000

JSON, CSV, JSON_LINES = "application/json", "text/csv", "application/jsonlines"
ANSWER_TYPES = (JSON, CSV, JSON_LINES)  # in the order of preference
IMAGE_TYPES = tuple(f"image/{name}" for name in ("jpeg", "png", "webp", "avif", "bmp", "gif", "tiff"))
IMAGE_TYPES += ("application/x-image", "application/octet-stream")
# Not registered, but what many programs send: Windows, old browsers, the AWS command line.
_ALIASES = tuple(f"image/{name}" for name in ("jpg", "pjpeg", "x-png", "x-bmp", "x-ms-bmp", "x-windows-bmp"))
_ALIASES += ("binary/octet-stream",)
_LINE_TYPES = (JSON_LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson", "application/ndjson")
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|BM|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|....ftyp(?:avi|hei|mif)",
    re.DOTALL,
)
# Base64 holds no brackets and no commas: a body with more of them is refused before it is built up in memory.
_MAX_STRUCTURE = 1000
_MAX_LINE_STRUCTURE = 10

Image = bytes | RequestError  # a picture, or why it cannot be read
Row = Sequence[Prediction] | RequestError  # the most probable classes of a picture, or why there are none


@dataclass(frozen=True)
class Request:
    """Encoded pictures, how many classes to answer for each.

    `batched`: they came as a list (instances, or lines), and are answered with one; one that cannot be read has its
    error there. `answer`: the type of the answer to a caller who accepts any.
    """

    images: tuple[Image, ...]
    top_k: int
    batched: bool
    answer: str = JSON


def media_type(content_type: str | None) -> str:
    """The type of a body, in lower case and without parameters, "" where there is none. Raises RequestError 415."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind and kind not in (JSON, *_LINE_TYPES, *IMAGE_TYPES, *_ALIASES):
        raise _unsupported(f"the content type {_shown(kind)} is not taken")
    return kind


def _unsupported(what: str) -> RequestError:
    taken = ", ".join((*IMAGE_TYPES, JSON, JSON_LINES))
    return RequestError(415, "UnsupportedMediaType", f"{what}: send one of {taken}")


def parse(body: bytes, content_type: str | None, custom_attributes: str | None = None) -> Request:
    """What a request asks for.

    `content_type` may be absent or empty: a body that begins like a picture is then taken as one.
    `custom_attributes` is the header X-Amzn-SageMaker-Custom-Attributes, of which `top_k=N` counts.

    Raises RequestError 400 for a body or an attribute that is wrong, 415 for a type that is not taken.
    """
    kind = media_type(content_type)
    if not kind and body and not _MAGIC.match(body):
        raise _unsupported("there is no content type")
    if not body:
        raise RequestError(400, "EmptyBody", "the body is empty: send a picture, or JSON with instances")
    if kind == JSON:
        images, top_k = _parse_json(body)
        return Request(images, top_k or _attribute_top_k(custom_attributes), True)
    top_k = _attribute_top_k(custom_attributes)
    if kind in _LINE_TYPES:
        return Request(tuple(map(_line, _lines(body))), top_k, True, JSON_LINES)
    return Request((body,), top_k, False)


def groups(body: bytes, content_type: str | None) -> list[bytes]:
    """The body in parts of MAX_INSTANCES lines, one after the other to be answered; of other types as it is.

    Raises RequestError 400 for more than MAX_LINES, 415 as `media_type` does.
    """
    if media_type(content_type) not in _LINE_TYPES:
        return [body]
    if (count := body.count(b"\n")) > MAX_LINES:
        raise RequestError(400, "TooManyLines", f"the body has {count} lines: send at most {MAX_LINES} at a time")
    lines = _lines(body)
    return [b"\n".join(lines[at : at + MAX_INSTANCES]) for at in range(0, len(lines), MAX_INSTANCES)]


def check_parts(parts: int, top_k: int, answer: str) -> None:
    """Whether answers to so many parts can be joined to one. Raises RequestError 406 or 400."""
    if parts > 1 and answer == JSON:
        message = f"more than {MAX_INSTANCES} lines are answered as {JSON_LINES} or {CSV} only"
        raise RequestError(406, "NotAcceptable", message)
    if parts * top_k > MAX_TOP_K:
        raise RequestError(400, "InvalidTopK", f"top_k: expected at most {MAX_TOP_K // parts} for so many lines")


def _lines(body: bytes) -> list[bytes]:
    """Each is a record with an answer of its own, an empty one too; the last may end with a line feed."""
    return body.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")


def _line(line: bytes) -> Image:
    """The picture of `{"b64": "..."}`, or of a whole body with one instance, as the service sends single records."""
    try:
        document = _document(line, _MAX_LINE_STRUCTURE)
        if isinstance(document, dict) and "instances" in document:
            instances = document["instances"]
            if not isinstance(instances, list) or len(instances) != 1 or len(document) != 1:
                _bad('line: expected {"b64": "..."}, or {"instances": [...]} with one instance and no other key')
            document = instances[0]
        return _instance(document, "line")
    except RequestError as error:
        return error


def _document(body: bytes, structure: int) -> Any:
    if sum(map(body.count, (b"{", b"[", b","))) > structure:
        _bad(f"is too deep or has too many values, at most {MAX_INSTANCES} instances are taken")
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        _bad("is not UTF-8")
    except json.JSONDecodeError as error:
        lines = f" (records by lines are {JSON_LINES})" if error.msg == "Extra data" else ""
        _bad(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}{lines}")
    except RecursionError:
        _bad("is too deep")
    except ValueError:  # a whole number of thousands of digits
        _bad("holds a number that cannot be read")


def _parse_json(body: bytes) -> tuple[tuple[Image, ...], int | None]:
    document = _document(body, _MAX_STRUCTURE)
    if not isinstance(document, dict):
        _bad(f'has to be an object {{"instances": [{{"b64": "..."}}]}}, got {_shown(document)}')
    if unknown := [key for key in document if key not in ("instances", "top_k")]:
        _bad(f"has the unknown key {_shown(unknown[0])}, expected instances and top_k")
    if "instances" not in document:
        _bad('lacks the key "instances"')
    instances = document["instances"]
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        got = f"{len(instances)} of them" if isinstance(instances, list) else _shown(instances)
        _bad(f"instances: expected a list of 1 to {MAX_INSTANCES} instances, got {got}")
    images = tuple(_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances))
    return images, _top_k(document["top_k"]) if "top_k" in document else None


def _instance(instance: object, where: str) -> Image:
    """Raises RequestError for what is no instance at all; a picture that cannot be read concerns itself alone."""
    if not isinstance(instance, dict):
        _bad(f'{where}: expected {{"b64": "..."}}, got {_shown(instance)}')
    if unknown := [key for key in instance if key != "b64"]:
        _bad(f'{where} has the unknown key {_shown(unknown[0])}, expected "b64"')
    try:
        return _decoded(instance.get("b64"), where)
    except RequestError as error:
        return error


def _decoded(text: object, where: str) -> bytes:
    if not isinstance(text, str) or not text:
        _bad(f"{where}.b64: expected a picture in base64, got {_shown(text)}")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            _bad(f"{where}.b64: expected a data: URL in base64, got {_shown(head)}")
    try:
        # Many encoders break lines, as mail wants it.
        image = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters that are not ASCII
        _bad(f"{where}.b64: is not base64 (standard alphabet, padded)")
    if not image:
        _bad(f"{where}.b64: the picture is empty")
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
        raise RequestError(
            400, "InvalidTopK", f"top_k: expected a whole number from 1 to {MAX_TOP_K}, got {_shown(value)}"
        )
    return value


def _bad(message: str) -> NoReturn:
    raise RequestError(400, "InvalidJSON", f"the JSON body {message}") from None


def _no_constant(name: str) -> NoReturn:
    _bad(f"holds {name}, which is not JSON")


def _shown(value: object) -> str:
    """A caller's value, for a message: short, on one line, in ASCII."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    # Slice first: a hostile value may be megabytes long, and very long integers cannot be printed at all.
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number beyond 10^18"
    text = ascii(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def negotiate(accept: str | None) -> str:
    """The answer's type for an Accept header: the highest q, then the more specific range, then the earlier
    one.

    Raises RequestError 406 naming the types there are.
    """
    ranges = [_media_range(part) for part in (accept or "").split(",") if part.strip()]
    if not ranges:
        return JSON
    best: tuple[float, int, int] | None = None
    chosen = ""
    for answer in ANSWER_TYPES:
        patterns = ("*/*", answer.split("/")[0] + "/*", answer)
        # The most specific range that matches decides about this type, whatever its q.
        matches = [(patterns.index(kind), -i, q) for i, (kind, q) in enumerate(ranges) if kind in patterns]
        if not matches:
            continue
        specific, position, q = max(matches)
        if q > 0 and (best is None or (q, specific, position) > best):
            best, chosen = (q, specific, position), answer
    if not chosen:
        raise RequestError(
            406,
            "NotAcceptable",
            f"there is no answer of type {_shown(accept)}: accept one of {', '.join(ANSWER_TYPES)}",
        )
    return chosen


def _media_range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    q = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q" and re.fullmatch(r"[01](\.\d*)?|\.\d+", value.strip()):
            q = min(float(value), 1.0)
    return ("*/*" if kind == "*" else kind), q


def render(
    rows: Sequence[Row], accept: str | None, *, model: Mapping[str, object], batched: bool, first: int = 0
) -> tuple[bytes, str]:
    """(body, content type) of the answer: one row per picture, or the error that it met.

    Unbatched JSON is `{"predictions": [...], "model": {...}}`, batched JSON has a list of such lists, with
    `{"error": {code, type, message}}` in place of one. CSV has the rows instance,index,label,probability without a
    header, counted from `first`; an error stands in the label's place. JSON lines have a line per picture. CSV and JSON
    lines end without a line feed, which who assembles answers by lines puts between them. Probabilities have 6
    significant digits. Raises RequestError 406 as `negotiate` does.
    """
    kind = negotiate(accept)
    if kind == CSV:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        for instance, row in enumerate(rows, first):
            if isinstance(row, RequestError):
                writer.writerow((instance, "", f"{row.kind}: {row}", ""))
            else:
                writer.writerows((instance, p.index, p.label, _rounded(p.probability)) for p in row)
        return table.getvalue().removesuffix("\n").encode(), CSV
    answers = [_answer(row) for row in rows]
    if kind == JSON_LINES:
        lines = (a if isinstance(a, dict) else {"predictions": a} for a in answers)
        return "\n".join(_dump({**line, "model": model}) for line in lines).encode(), JSON_LINES
    return _dump({"predictions": answers if batched else answers[0], "model": model}).encode(), JSON


def _answer(row: Row) -> list[dict[str, object]] | dict[str, object]:
    if isinstance(row, RequestError):
        return {"error": error_document(row.status, row.kind, row.message)}
    return [{"index": p.index, "label": p.label, "probability": _rounded(p.probability)} for p in row]


def _rounded(probability: float) -> float:
    return float(f"{probability:.6g}")


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
