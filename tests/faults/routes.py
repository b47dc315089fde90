"""Spellings of routes: requests whose method, path and headers try to reach what the table of routes does not name.

Each asks for the same thing, wherever it may be read: load the archive at `url`, and have `handler` run.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

HANDLER = "os:abort"
PATHS = (
    "/ping", "/invocations", "/execution-parameters", "/models", "/models/one", "/models/one/invoke",
    "/predictions/one", "/api-description", "/one/predict", "/models/one/1/invoke", "/", "/metrics",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE")
OTHER_METHODS = ("HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "post", "Post", "POST\x0b", "P%4fST", "_")
# What is served, as the table in docs/serving.md has it: methods and paths.
MODEL = "/models/[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
SINGLE = {"/ping": ("GET", "HEAD"), "/execution-parameters": ("GET",), "/invocations": ("POST",)}
MULTI = {
    "/ping": ("GET", "HEAD"), "/execution-parameters": ("GET",), "/models": ("GET", "POST"), MODEL: ("GET", "DELETE"),
    f"{MODEL}/invoke": ("POST",),
}  # fmt: skip
# With BYOC_PAGE=true, too.
PAGE = dict.fromkeys(("/", "/info", "/metrics", r"/openapi\.json"), ("GET", "HEAD"))
# By which the model server, a proxy or a framework may look elsewhere than at the request line.
HEADERS = (
    b"X-HTTP-Method-Override: POST", b"X-HTTP-Method: DELETE", b"X-Method-Override: PUT", b"X-Original-URL: /models",
    b"X-Rewrite-URL: /models?url=%s", b"X-Forwarded-Uri: /models", b"X-Forwarded-Prefix: /models",
    b"X-Amzn-SageMaker-Target-Model: %s", b"X-Amzn-SageMaker-Target-Variant: %s", b"Url: %s", b"Handler: os:abort",
    b"Destination: %s", b"Referer: %s", b"Forwarded: host=%s", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Upgrade: TLS/1.0",
    b"Expect: 100-continue", b"Content-Encoding: gzip", b"Content-Location: /models",
    b"Connection: Upgrade, HTTP2-Settings",
)  # fmt: skip


@dataclass(frozen=True)
class Spelling:
    """`target` is what the request line `method` `target` says; `raw` the whole request."""

    method: str
    target: str
    raw: bytes


def named(method: str, target: str, table: dict[str, tuple[str, ...]]) -> bool:
    """Tell whether the table has it: a path as written there, with or without http://HOST, a slash, a query."""
    host = r"(?:[hH][tT][tT][pP][sS]?://(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?(?=/))?"
    found = re.fullmatch(host + r"([^?#]*)(?:\?[^#\s]*)?", target)
    return found is not None and any(
        method in methods and re.fullmatch(f"{path}/?", found[1]) for path, methods in table.items()
    )


def targets(path: str, query: str, port: int) -> Iterator[str]:
    """Spellings of the path, with the query as it may be taken for one."""
    escaped = query.replace(":", "%3A").replace("/", "%2F")
    last = path[-1]
    first = path[1:2] or "x"
    yield from (
        path, f"{path}?{query}", f"{path}?{escaped}", f"{path}??{query}", f"{path}?&{query}", f"{path}?;{query}",
    )  # fmt: skip
    # The query by another name.
    for mark in (
        "%3F", "%3f", "%253F", "%25253F", ";", "%3B", "&", "#", "%23", "/?", "/%3F", "/%253F", "//?", "/;", "!", ",",
    ):  # fmt: skip
        yield f"{path}{mark}{query}"
    # Slashes and dots.
    yield from (f"{path}/", f"{path}//", f"{path}///", f"/{path}", f"//{path}", f"{path}/.", f"{path}/..", f"{path}/./")
    yield from (f"/.{path}", f"/..{path}", f"/x/..{path}", f"/ping/..{path}", f"/ping;/..{path}", f"{path}/../models")
    yield from (f"{path}/%2e", f"{path}/%2e%2e/models", f"/%2e%2e{path}", f"/x/%2e%2e{path}", f"/%252e%252e{path}")
    yield from (f"{path}/..;/models", f"/..;{path}", f"{path}.", f"{path}..", f"{path}...", f"{path}~", f"{path}.json")
    yield from (path.replace("/", "\\"), path.replace("/", "%5c"), path.replace("/", "%2F"), path.replace("/", "%2f"))
    yield from (path.replace("/", "%252F"), path.replace("/", "%25252F"), "/" + path[1:].replace("/", "%2F"))
    yield from (
        "/" + path[1:].replace("/", "\\"), "/" + path[1:].replace("/", "//"), "/" + path[1:].replace("/", "%5C"),
    )  # fmt: skip
    # Letters.
    code = f"{ord(first):02x}"
    for percents in ("%", "%25", "%2525", "%252525"):
        yield f"/{percents}{code}{path[2:]}"
        yield f"{path[:-1]}{percents}{ord(last):02x}"
    yield from (path.upper(), path.title(), path.swapcase(), f"/%u00{code}{path[2:]}", f"/&#x{code};{path[2:]}")
    # Bytes that are none of a path's, and codes that decode to none or to another.
    for code in ("%00", "%01", "%08", "%09", "%0a", "%0d", "%0d%0a", "%20", "%7f", "%80", "%ff", "%c0%af", "%e0%80%af"):
        yield from (f"{path}{code}", f"{path}{code}?{query}", f"/{code}{path[1:]}")
    for code in (
        "%ef%bc%8f", "%f0%80%80%af", "%", "%2", "%zz", "%g0", "%%32%66", "%u002f", "%-1", "%+2f", "+", "'", '"', "<",
        "$",
    ):  # fmt: skip
        yield f"{path}{code}"
        yield f"{path}{code}/models"
    for raw in (
        "\0", "\x01", "\x0b", "\x1f", "\x7f", "\x80", "\xff", "\xc0\xaf", "\t", " ", " /models", "\t/models", "é",
    ):  # fmt: skip
        yield f"{path}{raw}"
    # Other forms of a target.
    for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost", "[::1]", "x", "X.Y:1"):
        yield from (f"http://{host}{path}", f"HTTP://{host}{path}?{query}", f"https://{host}{path}")
    for prefix in (
        "http:", "http:/", "http://", "http:///", "http://a@b", "http://a:b@c", "http://x:y", "http://a b",
        "http://%61",
    ):  # fmt: skip
        yield f"{prefix}{path}"
    for prefix in (
        "ftp://x", "file://", "jar:http://x!", "unix:", "x", "//x", "http://x?", "http://x#", "http://x\\",
        "http://[x]",
    ):  # fmt: skip
        yield f"{prefix}{path}"
    yield from (
        path[1:] or "*", "*", f"*{path}", f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", f"?{query}", f"#{path}",
    )  # fmt: skip
    yield path + "/" + "a" * 2000
    yield path + "/x" * 1000


def spellings(port: int) -> Iterator[Spelling]:
    """All of them; `port` is where nobody must be asked for an archive."""
    url = f"http://127.0.0.1:{port}/evil.mar"
    query = f"url={url}&handler={HANDLER}&model_name=evil&runtime=python&synchronous=true&initial_workers=1"
    asked = {"url": url, "handler": HANDLER, "model_name": "evil", "runtime": "python", "initial_workers": 1}
    part = f'--b\r\nContent-Disposition: form-data; name="url"\r\n\r\n{url}\r\n--b--\r\n'
    # The first three could load a model by themselves, were the request one for that.
    bodies = [
        ("application/json", json.dumps(asked)), ("text/plain", query), ("image/jpeg", ""),
        ("application/x-www-form-urlencoded", query), ("application/json", json.dumps({**asked, "url": [url]})),
        ("multipart/form-data; boundary=b", part),
    ]  # fmt: skip
    others = itertools.cycle(bodies)

    def spelling(method: str, target: str, *headers: bytes, content: tuple[str, str] | None = None) -> Spelling:
        kind, body = content or next(others)
        head = [f"{method} {target} HTTP/1.1".encode("latin-1"), b"Host: localhost", *headers, b"Connection: close"]
        head += [f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()]
        return Spelling(method, target, b"\r\n".join(head) + body.encode())

    for path in PATHS:
        for target in targets(path, query, port):
            for method in METHODS:
                yield spelling(method, target)
            for content in bodies[:3]:
                yield spelling("POST", target, content=content)
        for method in OTHER_METHODS:
            yield from (spelling(method, path), spelling(method, f"{path}?{query}"))
        for method, header in itertools.product(METHODS, HEADERS):
            yield spelling(method, path, header.replace(b"%s", url.encode()), content=bodies[0])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    yield Spelling("PRI", "*", preface)
