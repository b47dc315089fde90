"""AWS's protocols as far as tests need them: which operation a request is, and answers that are errors."""

import io
import json
import re
import socket
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

ERRORS = {400: "400 Bad Request", 500: "500 Internal Server Error", 503: "503 Slow Down"}
# Parameters that tell S3's operations of one method apart; the first that is there decides.
_S3 = {
    "PUT": [("partNumber", "UploadPart"), ("publicAccessBlock", "PutPublicAccessBlock")],
    "POST": [
        ("delete", "DeleteObjects"),
        ("uploads", "CreateMultipartUpload"),
        ("uploadId", "CompleteMultipartUpload"),
    ],
    "GET": [("list-type", "ListObjectsV2"), ("location", "GetBucketLocation")],
    "DELETE": [("uploadId", "AbortMultipartUpload")],
    "HEAD": [],
}


def recognise(environ: WSGIEnvironment) -> tuple[str, dict[str, Any]]:
    """The operation as botocore names it, and its parameters where they are JSON."""
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        content = body(environ)
        return target.rpartition(".")[2], json.loads(content or b"{}") if b"{" in content[:1] else {}
    if found := re.search(r"/operation/(\w+)$", path):
        return found[1], {}
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(body(environ).decode(errors="replace")).get("Action", ["?"])[0], {}
    if found := re.fullmatch(r"/endpoints/[^/]+/(async-)?invocations", path):
        body(environ)  # what is left unread would be taken for the next request of the connection
        return "InvokeEndpointAsync" if found[1] else "InvokeEndpoint", {}
    if signed_for(environ)[1] != "s3":
        return f"{method} {path}", {}
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    whole = "Object" if path.strip("/").count("/") else "Bucket"
    verb = {"PUT": "Create" if whole == "Bucket" else "Put"}.get(method, method.title())
    return next((name for key, name in _S3.get(method, ()) if key in query), f"{verb}{whole}"), {}


def body(environ: WSGIEnvironment) -> bytes:
    content: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(content)
    return content


def signed_for(environ: WSGIEnvironment) -> tuple[str, str]:
    """(region, service) that a request is signed for."""
    found = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return (found[1], found[2]) if found else ("", "")


def parts(operation: str, request: dict[str, Any]) -> tuple[str, str, str]:
    """CreateEndpoint -> Create, Endpoint, and the name in the request."""
    found = re.fullmatch(r"(Create|Describe|Update|Stop|Delete)(\w+)", operation)
    verb, noun = found.groups() if found else ("", "")
    return verb, noun, str(request.get(f"{noun}Name", ""))


def drop(environ: WSGIEnvironment) -> None:
    """Werkzeug's server ends a request silently on a ConnectionError; the client is to see that at once."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def answer(start_response: StartResponse, status: int, document: dict[str, Any]) -> list[bytes]:
    content = json.dumps(document).encode()
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(content)))]
    start_response("200 OK" if status == 200 else ERRORS[status], headers)
    return [content]


def answer_throttled(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    # What is not read of a body would be taken for the next request of the connection.
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if signed_for(environ)[1] != "s3":
        return answer(start_response, 400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
    content = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    content = b"" if environ["REQUEST_METHOD"] == "HEAD" else content
    start_response(ERRORS[503], [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
    return [content]
