"""Requests that are meant to hurt: every content type, mutated and made up, the same ones for the same seed.

Each is a whole HTTP request as bytes, so that a well-behaved server owes it an answer.
"""

import base64
import functools
import io
import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from container_serve.codec.media import IMAGE_TYPES
from tests.container_serve.images import png_header
from tests.contract.models import picture
from tests.faults import pictures

SEED = 20_261_123
UNPICKLED = Path("/tmp/byoc-unpickled")


@dataclass(frozen=True)
class Case:
    """`kind` says what is wrong with the request `raw`."""

    kind: str
    raw: bytes


def request(body: bytes, *headers: bytes, line: bytes = b"POST /invocations HTTP/1.1", length: bool = True) -> bytes:
    lines = [line, b"Host: localhost", *headers, b"Connection: close"]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def typed(body: bytes, kind: str) -> bytes:
    return request(body, b"Content-Type: " + kind.encode())


class Payload:
    """Whoever unpickles it makes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (UNPICKLED,)


def pickles() -> dict[str, bytes]:
    table = io.BytesIO()
    np.save(table, np.array([Payload()], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, a=np.array([Payload()], dtype=object))
    plain = io.BytesIO()
    np.save(plain, np.zeros((3, 4), np.float32))
    found = {f"pickle {protocol}": pickle.dumps(Payload(), protocol) for protocol in (0, 2, 5)}
    return {**found, "npy of pickles": table.getvalue(), "npz of pickles": archive.getvalue(), "npy": plain.getvalue()}


def documents() -> dict[str, bytes]:
    """JSON bodies, by what is wrong with them."""
    b64 = base64.b64encode(picture("red")).decode()
    whole = {"instances": [{"b64": b64}]}

    def of(value: Any) -> bytes:
        return json.dumps(value).encode()

    return {
        "nothing": b"", "blank": b"   ", "null": b"null", "number": b"1", "string": b'"x"', "list": b"[]",
        "brace": b"{",
        "deep lists": b"[" * 200_000 + b"]" * 200_000,
        "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "few but deep": b"[" * 900 + b"]" * 900,
        "many values": b'{"instances":[' + b",".join([b"0"] * 500_000) + b"]}",
        "many keys": of({str(i): i for i in range(20_000)}),
        "long number": b'{"instances":' + b"9" * 100_000 + b"}",
        "long exponent": b'{"top_k": 1e999999999, "instances": []}',
        "not a number": b'{"top_k": NaN, "instances": []}', "infinite": b'{"instances": -Infinity}',
        "long string": of({"instances": [{"b64": "A" * 5_000_000}]}),
        "long key": of({"k" * 1_000_000: 1}),
        "two of a key": b'{"instances": 1, "instances": []}',
        "lone surrogate": b'{"instances": [{"b64": "\\ud800"}]}', "nul": b'{"instances": "\\u0000"}',
        "not UTF-8": b'{"instances": "\xff\xfe"}', "overlong UTF-8": b'{"instances": "\xc0\xaf"}',
        "UTF-16": json.dumps(whole).encode("utf-16"), "UTF-32": json.dumps(whole).encode("utf-32"),
        "latin-1": '{"instänces": []}'.encode("latin-1"), "byte order mark": b"\xef\xbb\xbf" + of(whole),
        "comment": b"/* */ {}", "single quotes": b"{'instances': []}", "after it": of(whole) + b"x",
        "lines of it": of(whole) + b"\n" + of(whole),
        "no instance": of({"instances": []}), "65 instances": of({"instances": [{"b64": b64}] * 65}),
        "64 instances": of({"instances": [{"b64": b64}] * 64}),
        "wrong instance": of({"instances": [1]}), "nested instance": of({"instances": [[{"b64": b64}]]}),
        "unknown key": of({**whole, "signature_name": "x"}), "proto": of({"__proto__": {}, **whole}),
        "a URL": of({"instances": [{"url": "file:///etc/passwd"}]}),
        "base64 as URLs": of({"instances": [{"b64": "_-_-"}]}), "no padding": of({"instances": [{"b64": "AAA"}]}),
        "bad base64": of({"instances": [{"b64": "!!!!"}]}), "base64 of nothing": of({"instances": [{"b64": "===="}]}),
        "data URL": of({"instances": [{"b64": "data:image/jpeg;base64," + b64}]}),
        "data URL without end": of({"instances": [{"b64": "data:" + "a" * 100_000}]}),
        "file URL": of({"instances": [{"b64": "file:///etc/passwd"}]}),
        "top_k 0": of({**whole, "top_k": 0}), "top_k 10^400": b'{"top_k": 1' + b"0" * 400 + b', "instances": []}',
        "top_k text": of({**whole, "top_k": "3"}), "top_k true": of({**whole, "top_k": True}),
        "bombs": of({"instances": [{"b64": base64.b64encode(png_header(2**30, 2**30)).decode()}] * 64}),
        "large pictures": of({"instances": [{"b64": base64.b64encode(pictures.flat_png(5000, 4000)).decode()}] * 8}),
        "one wrong": of({"instances": [{"b64": b64}] * 20 + [{"b64": "AAAA"}]}),
    }  # fmt: skip


def lines() -> dict[str, bytes]:
    good = json.dumps({"b64": base64.b64encode(picture("red")).decode()}).encode()
    return {
        "one": good, "none": b"\n", "10,000 empty": b"\n" * 10_000, "too many": b"\n" * 6_000_000,
        "wrong ones": b"\n".join([good, b"{", b"[" * 100_000, b"\xff", b"null", good]),
        "long line": b'{"b64": "' + b"A" * 6_000_000 + b'"}',
        "bombs": b"\n".join([json.dumps({"b64": base64.b64encode(png_header(2**30, 2**30)).decode()}).encode()] * 200),
    }  # fmt: skip


def heads() -> dict[str, bytes]:
    """Requests whose heads are unusual or wrong; the picture in them is fine."""
    body = picture("red")
    jpeg = b"Content-Type: image/jpeg"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:100], body[100:])) + b"0\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked"

    def line(text: bytes) -> bytes:
        return request(body, jpeg, line=text)

    return {
        "no type": request(body), "empty type": request(body, b"Content-Type:"),
        "type ;": request(body, b"Content-Type: ;"),
        "two types": request(body, jpeg, b"Content-Type: application/json"),
        "type with quotes": request(body, b'Content-Type: "image/jpeg'),
        "long type": request(body, b"Content-Type: image/" + b"x" * 4000),
        "type not ASCII": request(body, "Content-Type: image/jpég".encode()),
        "type not UTF-8": request(body, b"Content-Type: image/\xff\xfe"),
        "charset unknown": request(body, b"Content-Type: application/json; charset=ebcdic-\xe4"),
        "charset utf-16": request("{}".encode("utf-16"), b"Content-Type: application/json; charset=utf-16"),
        "charset utf-7": request(b"+AHs-", b"Content-Type: application/json; charset=utf-7"),
        "charset null": request(b"{}", b"Content-Type: application/json; charset=\0"),
        "long charset": request(b"{}", b"Content-Type: application/json; charset=" + b"x" * 3000),
        "accept nothing": request(body, jpeg, b"Accept: image/png"),
        "accept garbage": request(body, jpeg, b"Accept: ;;,,q=9"),
        "accept not UTF-8": request(body, jpeg, b"Accept: \xff\xfe"),
        "accept a thousand": request(body, jpeg, b"Accept: " + b",".join([b"a/b;q=0.1"] * 400)),
        "accept regex": request(body, jpeg, b"Accept: " + b"q" * 50 + b";q=" + b"1" * 3000 + b"x"),
        "attributes": request(body, jpeg, b"X-Amzn-SageMaker-Custom-Attributes: top_k=-1"),
        "attributes long": request(body, jpeg, b"X-Amzn-SageMaker-Custom-Attributes: " + b"top_k=3," * 500),
        "attributes not UTF-8": request(body, jpeg, b"X-Amzn-SageMaker-Custom-Attributes: top_k=\xff"),
        "id with escapes": request(body, jpeg, b"X-Amzn-RequestId: \x1b[31m%s${jndi:ldap://127.0.0.1/a}"),
        "id long": request(body, jpeg, b"X-Request-Id: " + b"i" * 5000),
        "own worker command": request(body, jpeg, b"url: http://127.0.0.1/x.mar", b"handler: os:system"),
        "many headers": request(body, jpeg, *[b"X-%d: y" % i for i in range(600)]),
        "header bomb": request(body, jpeg, *[b"X-%d: %s" % (i, b"y" * 1000) for i in range(200)]),
        "header of 100 KB": request(body, jpeg, b"X: " + b"y" * 100_000),
        "header without colon": request(body, jpeg, b"nonsense"), "header with a space": request(body, jpeg, b"X Y: z"),
        "header folded": request(body, jpeg, b"X: a\r\n b"), "header with NUL": request(body, jpeg, b"X: a\0b"),
        "header name empty": request(body, jpeg, b": x"), "header name not ASCII": request(body, jpeg, b"\xff\xfe: x"),
        "length negative": request(body, jpeg, b"Content-Length: -1", length=False),
        "length huge": request(body, jpeg, b"Content-Length: 99999999999999999999", length=False),
        "length of 10 GB": request(body, jpeg, b"Content-Length: 10000000000", length=False),
        "length text": request(body, jpeg, b"Content-Length: many", length=False),
        "length hexadecimal": request(body, jpeg, b"Content-Length: 0x10", length=False),
        "two lengths": request(body, jpeg, b"Content-Length: 5"),
        "length and chunks": request(chunks, jpeg, chunked),
        "chunks": request(chunks, jpeg, chunked, length=False),
        "chunks with extensions": request(b"5;a=b\r\n12345\r\n0\r\nX: y\r\n\r\n", jpeg, chunked, length=False),
        "chunk size wrong": request(b"zz\r\n12345\r\n0\r\n\r\n", jpeg, chunked, length=False),
        "chunk size negative": request(b"-5\r\n12345\r\n0\r\n\r\n", jpeg, chunked, length=False),
        "chunk size huge": request(b"ffffffffffffffff\r\n12345\r\n0\r\n\r\n", jpeg, chunked, length=False),
        "coding unknown": request(body, jpeg, b"Transfer-Encoding: gzip, identity"),
        "packed body": request(b"\x1f\x8b\x08\0" + body, jpeg, b"Content-Encoding: gzip"),
        "expect": request(body, jpeg, b"Expect: 100-continue"), "expect more": request(body, jpeg, b"Expect: 200-ok"),
        "upgrade": request(body, jpeg, b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        "websocket": request(b"", b"Upgrade: websocket", line=b"GET /invocations HTTP/1.1"),
        "two hosts": request(body, jpeg, b"Host: other"),
        "host twice": request(body, jpeg, b"Host: localhost"),
        "no host": b"POST /invocations HTTP/1.1\r\n%s\r\nContent-Length: 1\r\n\r\nx" % jpeg,
        "path not decodable": line(b"POST /invocations%zz HTTP/1.1"), "path cut": line(b"POST /invocations% HTTP/1.1"),
        "path not UTF-8": line(b"POST /\xff\xfe HTTP/1.1"), "path with NUL": line(b"POST /ping%00 HTTP/1.1"),
        "path up": line(b"POST /../../etc/passwd HTTP/1.1"), "path of slashes": line(b"POST //invocations// HTTP/1.1"),
        "path escaped": line(b"POST /%69nvocations HTTP/1.1"),
        "path of a host": line(b"POST http://x/invocations HTTP/1.1"),
        "path long": line(b"POST /" + b"a" * 3000 + b" HTTP/1.1"),
        "path too long": line(b"POST /" + b"a" * 9000 + b" HTTP/1.1"),
        "query": line(b"POST /invocations?model_name=x&url=http://127.0.0.1/ HTTP/1.1"),
        "star": line(b"OPTIONS * HTTP/1.1"), "connect": line(b"CONNECT 127.0.0.1:22 HTTP/1.1"),
        "delete": line(b"DELETE /models/model HTTP/1.1"),
        "register": line(b"POST /models?url=http://127.0.0.1/x HTTP/1.1"),
        "predict": line(b"POST /predictions/model HTTP/1.1"), "get": line(b"GET /invocations HTTP/1.1"),
        "trace": line(b"TRACE /invocations HTTP/1.1"), "method unknown": line(b"BREW /invocations HTTP/1.1"),
        "method long": line(b"X" * 3000 + b" /invocations HTTP/1.1"), "HTTP/9.9": line(b"POST /invocations HTTP/9.9"),
        "HTTP/1.0": line(b"POST /invocations HTTP/1.0"), "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "no version": line(b"POST /invocations"),
        "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        "binary": bytes(range(256)) + b"\r\n\r\n", "ping with a body": line(b"GET /ping HTTP/1.1"),
    }  # fmt: skip


def forms() -> dict[str, bytes]:
    body = picture("red")
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n' + body + b"\r\n--b--\r\n"
    types = {
        "as curl sends it": (body, b"application/x-www-form-urlencoded"),
        "pairs": (b"a=1&b=%zz&=&&" + b"c=" * 5000, b"application/x-www-form-urlencoded; charset=utf-8"),
        "capitals": (b"a=1", b"APPLICATION/X-WWW-FORM-URLENCODED"),
        "multipart": (part, b"multipart/form-data; boundary=b"),
        "multipart, no boundary": (part, b"multipart/form-data"),
        "multipart, long boundary": (part, b"multipart/form-data; boundary=" + b"b" * 2000),
        "multipart, cut": (part[:-20], b"multipart/form-data; boundary=b"),
        "multipart, a form in it": (
            part.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n", 1),
            b"multipart/form-data; boundary=b",
        ),
        "multipart, many parts": (part[:-5] * 3000, b"multipart/form-data; boundary=b"),
        "multipart, another coding": (
            part.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
            b"multipart/form-data; boundary=b",
        ),
        "multipart, charset unknown": (
            part.replace(b"\r\n\r\n", b"\r\nContent-Type: image/jpeg; charset=x\xff\r\n\r\n", 1),
            b"multipart/form-data; boundary=b",
        ),
        "multipart, mixed": (part, b"multipart/mixed; boundary=b"),
    }
    return {name: request(body, b"Content-Type: " + kind) for name, (body, kind) in types.items()}


@functools.cache
def fixed() -> tuple[Case, ...]:
    """One case, or a few, of every kind that is not left to chance."""
    found: list[Case] = []
    for name, make in {**pictures.BOMBS, **pictures.ZERO}.items():
        found.append(Case(f"bomb: {name}", typed(make(), f"image/{name.split()[0]}")))
    for name, body in pictures.OTHER_FORMATS.items():
        found.append(Case(f"magic: {name}", typed(body, "image/jpeg")))
        found.append(Case(f"magic: {name}, as it is", typed(body, "application/octet-stream")))
    for name, body in documents().items():
        found.append(Case(f"json: {name}", typed(body, "application/json")))
        found.append(Case(f"json as a picture: {name}", typed(body[:1000], "application/x-image")))
    for name, body in lines().items():
        found.append(Case(f"lines: {name}", typed(body, "application/jsonlines")))
    for name, body in pickles().items():
        for kind in ("application/x-npy", "application/x-npz", "application/pickle", "application/octet-stream"):
            found.append(Case(f"pickles: {name} as {kind}", typed(body, kind)))
    found += [Case(f"head: {name}", raw) for name, raw in heads().items()]
    found += [Case(f"form: {name}", raw) for name, raw in forms().items()]
    for kind in ("text/csv", "text/plain", "application/jsonlines", "image/heic", "video/mp4", "x", "*/*"):
        found.append(Case(f"type: {kind}", typed(b"1,2,3", kind)))
    for kind in (*IMAGE_TYPES, "application/json"):
        found += [Case(f"empty: {kind}", typed(b"", kind)), Case(f"one byte: {kind}", typed(b"\xff", kind))]
    found.append(Case("over the limit", typed(bytes(6_291_457), "image/jpeg")))
    found.append(Case("at the limit", typed(b"\xff\xd8\xff" + bytes(6_291_453), "image/jpeg")))
    return tuple(found)


def mutated(dice: random.Random) -> Case:
    """A picture or a document, damaged at random, under a type that may or may not be its own."""
    name, change = dice.choice(list(pictures.MUTATIONS.items()))
    if dice.random() < 0.25:
        title, body = dice.choice([(n, b) for n, b in documents_once().items() if 0 < len(b) < 100_000])
        return Case(f"mutated: json {name}", typed(change(body, dice), "application/json")) if title else mutated(dice)
    body = change(dice.choice(pictures.seeds_once()), dice)
    if dice.random() < 0.15:
        instances = [{"b64": base64.b64encode(each).decode()} for each in (body, picture("blue"))]
        return Case(
            f"mutated: instance {name}", typed(json.dumps({"instances": instances}).encode(), "application/json")
        )
    return Case(f"mutated: picture {name}", typed(body, dice.choice(IMAGE_TYPES)))


@functools.cache
def documents_once() -> dict[str, bytes]:
    return documents()


def corpus(count: int, seed: int = SEED) -> Iterator[Case]:
    """`count` requests: every fixed kind, as far as they go, in an order drawn by lot, and mutations for the rest."""
    dice = random.Random(seed)
    cases = list(fixed())
    dice.shuffle(cases)
    yield from cases[:count]
    for _ in range(count - len(cases)):
        yield mutated(dice)
