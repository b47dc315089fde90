"""A form (multipart/form-data) with one file, as requests.post(files=...) and curl -F send it.

Python's email package reads the headers. It can read the whole form, too, but line by line: 30 times as long for 6 MB.
"""

from email.message import Message
from email.parser import BytesHeaderParser

from container_serve.errors import RequestError

FORM = "multipart/form-data"


def file(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The one file of a form, and its own type, "" where only its bytes tell. RequestError 400 for other forms."""
    form = Message()
    form["Content-Type"] = content_type
    if boundary := form.get_boundary():
        line = b"--" + boundary.encode(errors="replace")
        begin = 0 if body.startswith(line) else body.find(b"\r\n" + line)
        head = body.find(b"\r\n", begin + 2) + 2
        blank = body.find(b"\r\n\r\n", begin)
        end = body.find(b"\r\n" + line, blank)
        if 0 <= begin < blank < end and body.startswith(b"--", end + 2 + len(line)):
            part = BytesHeaderParser().parsebytes(body[head:blank])
            if part.get_filename() is not None:
                kind = str(part.get("Content-Type", "application/octet-stream"))
                # Many Android programs give a file the type of the form around it: then its bytes decide.
                return body[blank + 4 : end], "" if kind.lower().startswith(FORM) else kind
    raise RequestError(400, "InvalidForm", "expected a whole form of one file with its name, and nothing else")
