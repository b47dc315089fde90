"""Media types: those that bodies have, and those that answers are given in."""

import re
from functools import lru_cache

from container_serve.errors import RequestError, shown

JSON, CSV, JSON_LINES = "application/json", "text/csv", "application/jsonlines"
ANSWER_TYPES = (JSON, CSV, JSON_LINES)  # in the order of preference
IMAGE_TYPES = tuple(f"image/{name}" for name in ("jpeg", "png", "webp", "avif", "bmp", "gif", "tiff"))
IMAGE_TYPES += ("application/x-image", "application/octet-stream")
# Not registered, but what many programs send: Windows, old browsers, the AWS command line, Android's HTTP clients (*).
_NICKNAMES = ("*", "jpg", "jfif", "pjpeg", "x-png", "tif", "x-tiff", "x-bmp", "x-ms-bmp", "x-windows-bmp")
_ALIASES = tuple(f"image/{name}" for name in _NICKNAMES)
_ALIASES += ("binary/octet-stream",)
_CURL_TYPE = "application/x-www-form-urlencoded"
LINE_TYPES = (JSON_LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson", "application/ndjson")


@lru_cache
def media_type(content_type: str | None) -> str:
    """The type of a body, in lower case and without parameters, "" where there is none. Raises RequestError 415."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind and kind not in (JSON, *LINE_TYPES, *IMAGE_TYPES, *_ALIASES):
        by_curl = " (curl sends it without -H 'Content-Type: image/jpeg')" if kind == _CURL_TYPE else ""
        raise unsupported(f"the content type {shown(kind)} is not taken{by_curl}")
    return kind


def unsupported(what: str) -> RequestError:
    taken = ", ".join((*IMAGE_TYPES, JSON, JSON_LINES, "multipart/form-data with one file"))
    return RequestError(415, "UnsupportedMediaType", f"{what}: send one of {taken}")


@lru_cache
def negotiate(accept: str | None, preferred: str = JSON) -> str:
    """The answer's type for an Accept header: the highest q, then the more specific range, then the earlier
    one; `preferred` where any is as good.

    Raises RequestError 406 naming the types there are.
    """
    ranges = [_media_range(part) for part in (accept or "").split(",") if part.strip()]
    if not ranges:
        return preferred

    def rank(answer: str) -> tuple[float, int, int]:
        patterns = ("*/*", answer.split("/")[0] + "/*", answer)
        # The most specific range that matches decides about this type, whatever its q.
        matches = [(patterns.index(kind), -i, q) for i, (kind, q) in enumerate(ranges) if kind in patterns]
        specific, position, q = max(matches, default=(0, 0, 0.0))
        return q, specific, position

    chosen = max((preferred, *ANSWER_TYPES), key=rank)
    if not rank(chosen)[0]:
        types = ", ".join(ANSWER_TYPES)
        raise RequestError(406, "NotAcceptable", f"there is no answer of type {shown(accept)}: accept one of {types}")
    return chosen


def _media_range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    q = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q" and re.fullmatch(r"[01](\.\d*)?|\.\d+", value.strip()):
            q = min(float(value), 1.0)
    return ("*/*" if kind == "*" else kind), q
