"""The errors of serving, and the JSON that a caller gets."""

import json


class ServeError(Exception):
    """Any failure that this package explains itself; `str()` is one line: what is wrong, where, what to do."""


class ArtifactError(ServeError):
    """The model's folder cannot be served."""


class RequestError(ServeError):
    """The answer to a request that failed.

    `status` is the HTTP status, `kind` the "type" of the JSON error body ("InvalidImage", "PixelLimit",
    "UnsupportedMediaType", ...), `str()` the message.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        # All three go into args: worker processes hand this exception over pickled.
        super().__init__(status, kind, message)
        self.status = status
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message

    def document(self) -> dict[str, object]:
        return {"code": self.status, "type": self.kind, "message": self.message}

    def body(self) -> bytes:
        """The JSON body of the answer, in ASCII: a message may quote a lone surrogate, which UTF-8 cannot encode."""
        return json.dumps(self.document()).encode("ascii")


def shown(value: object) -> str:
    """A JSON value for a message: short, on one line, in ASCII."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, tuple):  # a list of numbers, or so it should be
        return f"[{', '.join(map(shown, value[:4]))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    # Slice first: a hostile value may be megabytes long, and very long integers cannot be printed at all.
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number beyond 10^18"
    text = ascii(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."
