"""What can go wrong while serving, and how a caller is told."""

import json


class ServeError(Exception):
    """Any failure that this package explains itself; `str()` is one line."""


class ArtifactError(ServeError):
    """The model's folder cannot be served; `str()` says which file, why, and what to do."""


class RequestError(ServeError):
    """What a caller did wrong.

    `status` is the HTTP status (400, 406, 413 or 415), `kind` the "type" of the JSON error body
    ("InvalidImage", "PixelLimit", "UnsupportedMediaType", ...), `str()` the message.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        # All three go into args: worker processes hand this exception over pickled.
        super().__init__(status, kind, message)
        self.status = status
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


def error_document(status: int, kind: str, message: str) -> dict[str, object]:
    return {"code": status, "type": kind, "message": message}


def error_body(status: int, kind: str, message: str) -> bytes:
    """The JSON body `{"code", "type", "message"}` of an answer that is not a prediction, in ASCII bytes."""
    # ASCII escapes: a message may quote a caller's lone surrogate, which UTF-8 cannot encode.
    return json.dumps(error_document(status, kind, message)).encode("ascii")
