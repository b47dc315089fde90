"""The bodies of requests and answers."""

from container_serve.codec.answers import Row, render
from container_serve.codec.media import ANSWER_TYPES, CSV, IMAGE_TYPES, JSON, JSON_LINES, media_type, negotiate
from container_serve.codec.requests import (
    DEFAULT_TOP_K,
    MAX_INSTANCES,
    MAX_TOP_K,
    Image,
    Request,
    check_parts,
    groups,
    parse,
)

__all__ = [
    "ANSWER_TYPES",
    "CSV",
    "DEFAULT_TOP_K",
    "IMAGE_TYPES",
    "JSON",
    "JSON_LINES",
    "MAX_INSTANCES",
    "MAX_TOP_K",
    "Image",
    "Request",
    "Row",
    "check_parts",
    "groups",
    "media_type",
    "negotiate",
    "parse",
    "render",
]
