"""A form (multipart/form-data) with one file, as requests.post(files=...) and curl -F send it."""

import re

from container_serve.errors import RequestError

FORM = "multipart/form-data"
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(rb"^content-disposition:[^\r\n]*;[ \t]*filename\*?=", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def file(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The one file of a form, and its own type. Raises RequestError 400 for a form that holds anything else."""
    if found := _BOUNDARY.search(content_type):
        line = b"--" + (found[1] or found[2]).encode()
        begin = 0 if body.startswith(line) else body.find(b"\r\n" + line)
        blank = body.find(b"\r\n\r\n", begin)
        end = body.find(b"\r\n" + line, blank)
        head = body[begin:blank]
        if 0 <= begin < blank < end and body.startswith(b"--", end + 2 + len(line)) and _FILE.search(head):
            kind = _TYPE.search(head)
            return body[blank + 4 : end], kind[1].decode("latin-1") if kind else "application/octet-stream"
    raise RequestError(400, "InvalidForm", "expected a whole form of one file with its name, and nothing else")
