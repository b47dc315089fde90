"""Requests whose end may be seen in two places, each with a good picture first and another request hidden behind it."""

from collections.abc import Iterator

HIDDEN = b"GET /execution-parameters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SHOWN = b"MaxConcurrentTransforms"  # in the answer to it
LINE = b"POST /invocations HTTP/1.1"
TYPE = b"Content-Type: image/jpeg"
CHUNKED = b"Transfer-Encoding: chunked"


def head(*headers: bytes, line: bytes = LINE, end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: x", TYPE, *headers]) + 2 * end


def length(size: int) -> bytes:
    return b"Content-Length: %d" % size


def chunks(*parts: bytes, size: bytes = b"%x", end: bytes = b"\r\n", last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(size % len(part) + end + part + b"\r\n" for part in parts) + last


def shapes(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what is odd about each request, and its bytes."""
    for where, shape in (
        ("two lines", two_ends), ("chunks", chunk_lines), ("codings", codings), ("lengths", lengths),
        ("before it", before), ("request lines", request_lines), ("headers", headers),
    ):  # fmt: skip
        for name, raw in shape(picture):
            yield f"{where}: {name}", raw


def two_ends(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """Both a length and chunks: one of them says that the hidden request is part of the body, the other one not."""
    body = chunks(picture)
    for line in (LINE, LINE[:-1] + b"0"):
        version = line[-3:].decode()
        for keep in (
            (), (b"Connection: keep-alive",), (b"Connection: Content-Length",), (b"Connection: Transfer-Encoding",),
        ):  # fmt: skip
            both = [length(len(body + HIDDEN)), CHUNKED]
            for order in (both, both[::-1]):
                yield f"{version}, {order[0][:7]!r} first, {keep}", head(*order, *keep, line=line) + body + HIDDEN
            yield f"{version}, chunks alone, {keep}", head(CHUNKED, *keep, line=line) + body + HIDDEN
        yield f"{version}, length 0 and chunks", head(length(0), CHUNKED, line=line) + body + HIDDEN
        yield (
            f"{version}, the picture's length and chunks",
            head(length(len(picture)), CHUNKED, line=line) + body + HIDDEN,
        )
        yield f"{version}, chunks and no length", head(line=line) + body + HIDDEN
    hidden = chunks(picture, last=b"0\r\n\r\n" + HIDDEN)
    yield "a length that ends the hidden one too", head(length(len(hidden))) + hidden


def chunk_lines(picture: bytes) -> Iterator[tuple[str, bytes]]:
    def chunked(body: bytes) -> bytes:
        return head(CHUNKED) + body + HIDDEN

    yield "plain", chunked(chunks(picture))
    yield "two", chunked(chunks(picture[:9], picture[9:]))
    for extension in (
        b";a", b";a=b", b"; a=b", b" ;a=b", b";", b";;", b';a="b"', b';a="\r\n"', b';a="\\"\r\n',
        b';a="' + HIDDEN + b'"',
        b";a\n", b";\nxx", b";a=\nb", b";a=b\n\r\n" + HIDDEN, b";a\r", b";\rxx", b";\0", b";\xff", b";" + b"x" * 9000,
        b"\\;",
    ):  # fmt: skip
        yield f"extension {extension[:12]!r}", chunked(chunks(picture, size=b"%x" + extension.replace(b"%", b"%%")))
        yield (
            f"last chunk's extension {extension[:12]!r}",
            chunked(chunks(picture, last=b"0" + extension + b"\r\n\r\n")),
        )
    for end in (
        b"\n", b"\r", b"\n\r", b"\r\r\n", b"\n\n", b"\r\n\r\n", b" \r\n", b"\t\r\n", b"\x0b\r\n", b"\0\r\n",
        b"\x85\r\n", b"\x1c\r\n",
    ):  # fmt: skip
        yield f"size line ends with {end!r}", chunked(chunks(picture, end=end))
    for size in (
        b"+%x", b"-%x", b"0x%x", b"0X%x", b" %x", b"\t%x", b"\r\n%x", b"\n%x", b"%x_0", b"%xg", b"%xh", b"%x.0",
        b"%x,0", b'"%x"',
        b"000000%x", b"0000000000000000%x", b"1%08x", b"1%016x", b"f" * 8 + b"%08x", b"%x %%x", b"\0%x",
        b"\xef\xbc\x91%x", b"%xL",
    ):  # fmt: skip
        yield f"size {size!r}", chunked(chunks(picture, size=size))
    for size in (
        b"", b"-1", b"-0", b"zz", b"ffffffff", b"7fffffff", b"80000000", b"ffffffffffffffff", b"10000000000000000",
    ):  # fmt: skip
        yield f"size is {size!r}", chunked(size + b"\r\n" + picture + b"\r\n0\r\n\r\n")
    size = b"%x\r\n" % len(picture)
    for end in (b"", b"\n", b"\r", b"x\r\n", b"\0\r\n", b" \r\n", b"\n\r\n", b"\r\n\r\n"):
        yield f"data ends with {end!r}", chunked(size + picture + end + b"0\r\n\r\n")
    for last in (
        b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\r", b"0\r\n\r", b"0 \r\n\r\n", b"00\r\n\r\n", b"000000000\r\n\r\n",
        b"-0\r\n\r\n", b"0x0\r\n\r\n",
        b"0\r\n\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 99\r\n\r\n",
        b"0\r\nTransfer-Encoding: x\r\n\r\n",
        b"0\r\nX: y\n\r\n", b"0\r\n X\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\n:\r\n\r\n", b"0\r\n\0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n", b"\r\n",
    ):  # fmt: skip
        yield f"last chunk {last[:24]!r}", chunked(chunks(picture, last=last))


def codings(picture: bytes) -> Iterator[tuple[str, bytes]]:
    body = chunks(picture)
    for value in (
        b"Chunked", b"chunked ", b"\tchunked", b"identity", b"xchunked", b"chunkedx", b"chunked, identity",
        b"identity, chunked",
        b"chunked,", b",chunked", b"chunked, chunked", b"chunked;q=1", b"gzip", b"gzip, chunked", b"deflate", b"",
        b" ", b'"chunked"',
        b"chunked\x0b", b"\x0bchunked", b"chunked\0", b"\0chunked", b"\x85chunked", b"chun\xc4\xb7ed",
        b"\r\n chunked", b"chunked\r\n x",
        b"\nchunked", b"x\rchunked", b"chunked\n", b"cow\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: cow",
        b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding:", b"\\chunked", b"chunked\\",
        b"ch\xc2\xaDunked",
    ):  # fmt: skip
        whole = length(len(body + HIDDEN))
        yield f"{value!r}", head(b"Transfer-Encoding:" + value) + body + HIDDEN
        yield f"{value!r} and a length", head(b"Transfer-Encoding: " + value, whole) + body + HIDDEN
    for name in (
        b"Transfer-Encoding ", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer-Encoding\t",
        b"Transfer-Encoding\0", b"Transfer\0-Encoding",
        b"Transfer Encoding", b"\xffTransfer-Encoding", b"Transfer-Encoding\x0b", b"X: y\nTransfer-Encoding",
        b"X: y\rTransfer-Encoding", b"Transfer-Encoding\r\n",
    ):  # fmt: skip
        yield f"name {name!r}", head(length(len(picture)), name + b": chunked") + picture + HIDDEN
        yield f"name {name!r}, in chunks", head(name + b": chunked") + body + HIDDEN


def lengths(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """Lengths that hide a request from a reader who takes them for another number."""
    body = picture + HIDDEN
    size, whole = len(picture), len(body)
    for form in (
        b"+%d", b"-%d", b"0x%x", b"%x", b"0%d", b"00%d", b"%d,", b",%d", b"%d, %d", b"%d,%d", b"%d %d", b"%d;",
        b"%d.0", b"%de0", b'"%d"',
        b"%d_0", b"%d\x0b", b"\x0b%d", b"%d\0", b"\0%d", b"%d\x85", b"\xc2\xa0%d", b"%d\r\n 0", b"\r\n %d", b"%d\r0",
        b"%d\n0", b"\n%d", b"",
        b"%dx", b"1%020d", b"18446744073709551616%d", b"%dL", b"\xef\xbc\x95%d", b"%d\r\nContent-Length: %d",
        b"0\r\nContent-Length: %d",
        b"%d\r\nContent-Length: 0", b"%d\r\nContent-Length:", b"%d\r\ncontent-length: 0", b"%d\nContent-Length: 0",
        b"%d(comment)",
    ):  # fmt: skip
        value = form % ((size,) * form.count(b"%"))
        yield f"{form!r} of the picture", head(b"Content-Length: " + value) + body
        value = form % ((whole,) * form.count(b"%"))
        yield f"{form!r} of all", head(b"Content-Length: " + value) + body
    yield "differing", head(length(whole), length(size)) + body
    yield "differing, the other way", head(length(size), length(whole)) + body
    for name in (
        b"Content-Length ", b" Content-Length", b"\tContent-Length", b"Content-Length\0", b"Content Length",
        b"Content-Length\xad", b"X: y\rContent-Length",
    ):  # fmt: skip
        yield f"name {name!r}", head(length(whole), name + b": %d" % size) + body
        yield f"name {name!r} alone", head(name + b": %d" % whole) + body


def before(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """Bytes before a request line: of the first request, and of one that follows a whole one."""
    odd = [bytes([code]) for code in (*range(33), 127, 128, 133, 160, 255)]
    odd += [
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\0" * 9,
        b"\xef\xbb\xbf",
        b"x: y\r\n",
        b"\r\n ",
        b"\x1c\x1d\r\n",
        b"0\r\n\r\n",
        b"\r\0\n",
    ]
    for prefix in odd:
        yield f"{prefix!r}", prefix + head(length(len(picture))) + picture + prefix + HIDDEN
        yield f"{prefix!r} in chunks", prefix + head(CHUNKED) + chunks(picture) + prefix + HIDDEN
        yield f"{prefix!r} before the second", head(length(len(picture))) + picture + prefix + HIDDEN


def request_lines(picture: bytes) -> Iterator[tuple[str, bytes]]:
    for line in (
        b"POST  /invocations HTTP/1.1", b"POST /invocations  HTTP/1.1", b"POST\t/invocations HTTP/1.1",
        b"POST /invocations\tHTTP/1.1",
        b"POST /invocations HTTP/1.1 ", b" POST /invocations HTTP/1.1", b"POST /invocations HTTP/1.1\t",
        b"POST /invocations HTTP/1.1 x",
        b"POST /invocations", b"POST /invocations ", b"POST", b"", b"POST /invocations HTTP/1.2",
        b"POST /invocations HTTP/2.0",
        b"POST /invocations HTTP/0.9", b"POST /invocations HTTP/1", b"POST /invocations HTTP/1.10",
        b"POST /invocations HTTP/01.1",
        b"POST /invocations http/1.1", b"POST /invocations HTTP/1,1", b"POST /invocations HTTP /1.1",
        b"POST /invocations HTTP/1.1\r",
        b"POST /invocations ICY/1.1", b"POST /invocations RTSP/1.0", b"POST /invocations HTTP/ 1.1",
        b"POST /invocations HTTP/+1.1",
        b"POST /invocations\x0bHTTP/1.1", b"POST\x0b/invocations HTTP/1.1", b"P\0OST /invocations HTTP/1.1",
        b"POST /invocations\0 HTTP/1.1",
        b"POST /invocations HTTP/1.1\0", b"POST \r\n/invocations HTTP/1.1", b"POST\xa0/invocations HTTP/1.1",
        b"post /invocations HTTP/1.1",
    ):  # fmt: skip
        yield f"{line!r}", head(length(len(picture)), line=line) + picture + HIDDEN


def headers(picture: bytes) -> Iterator[tuple[str, bytes]]:
    size = length(len(picture))
    for header in (
        b"X", b"X y", b": y", b"X : y", b"X\t: y", b" X: y", b"\tX: y", b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\0",
        b"X\0: a", b"X: a\rb", b"X: a\nb",
        b"X: a\nY: b", b"X: a\x01", b"X: a\x7f", b"X: a\x0b", b"X(: a", b"X@: a", b"X[]: a", b"\xc3\xa4: a",
        b'"X": a', b"X,Y: a", b"X: a\r\r",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 3 4",
        b"Sec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 3 4\r\nsec-websocket-key3: 1", b"Expect: x",
        b"Expect: 100-continue, x",
    ):  # fmt: skip
        yield f"{header!r}", head(size, header) + picture + HIDDEN
        yield f"{header!r} first", head(header, size) + picture + HIDDEN
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x85", b"\x0b\n"):
        yield f"lines end with {end!r}", head(size, end=end) + picture + HIDDEN
    for end in (b"\n", b"\r", b"\r\r\n", b" \r\n", b"\0\r\n", b"\t\r\n", b"\x0b\r\n"):
        yield f"head ends with {end!r}", head(size)[:-2] + end + picture + HIDDEN
    websocket = b"GET /ping HTTP/1.1\r\nSec-WebSocket-Key1: 1\r\nSec-WebSocket-Key2: 2\r\n\r\n"
    yield "8 bytes that only the old WebSocket has", websocket + b"12345678" + HIDDEN
