"""One framing for each request: what is hidden behind a picture is never answered, however its end is written."""

import concurrent.futures
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import both_engines
from tests.contract.models import picture, write_model
from tests.contract.serving import access_lines, serving
from tests.faults import framing
from tests.faults.client import connect, everything, read

PICTURE = picture("red")


def answered(raw: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-9]\d\d) ", raw)]


@both_engines
@pytest.mark.timeout(600)
def test_what_is_hidden_behind_a_picture_is_never_answered(tmp_path: Path, kind: str) -> None:
    env = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "3"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        workers = server.python()

        def send(shape: tuple[str, bytes]) -> tuple[bytes, bool]:
            return everything(server.port, shape[1], 20, 1.5)

        shapes = list(framing.shapes(PICTURE))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, shapes))
        wrong, counted = [], Counter[str]()
        for (name, _), (raw, ended) in zip(shapes, answers, strict=True):
            statuses = answered(raw)
            counted[f"{statuses}{', closed' if ended else ''}"] += 1
            # The picture's answer, or a refusal, or both where the picture's request is whole and the next one is not.
            if framing.SHOWN in raw or statuses not in ([200], [400], [408], [417], [200, 400]):
                wrong.append((name, statuses, raw[-300:]))
        print(f"{len(shapes)} shapes: {dict(counted)}")
        assert wrong == []
        assert len(shapes) > 400
        assert server.python() == workers


def test_the_same_pictures_are_answered_in_requests_without_a_doubt(tmp_path: Path) -> None:
    """Alone each way of sending it works; several of known length share a connection, after chunks it ends."""
    whole = framing.head(framing.length(len(PICTURE))) + PICTURE
    chunked = framing.head(framing.CHUNKED) + framing.chunks(PICTURE[:50], PICTURE[50:])
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        for raw, statuses, ends in (
            (whole, [200], False),
            (whole + whole + framing.HIDDEN, [200, 200, 200], True),
            (chunked, [200], True),
            (chunked + whole, [200], True),
            (whole + chunked + whole, [200, 200], True),
        ):
            received, ended = everything(server.port, raw, quiet=2)
            assert (answered(received), ended) == (statuses, ends), received
        for raw in (whole, chunked):
            received, _ = everything(server.port, raw, quiet=2, pieces=7)
            assert answered(received) == [200]


@pytest.mark.parametrize("line", [b"a(b): 1", b"X: " + b"y" * 13_000, b"Transfer-Encoding: gzip"])
def test_a_caller_that_still_sends_sees_why_it_was_refused(tmp_path: Path, line: bytes) -> None:
    """A connection that is closed at once is reset, and the answer with it."""
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n" + line + b"\r\n\r\n"
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        for _ in range(5):
            with connect(server.port) as connection:
                connection.sendall(head)
                connection.sendall(bytes(6_000_000))
                reply = read(connection)
            assert (reply.status, json.loads(reply.body)["type"]) == (400, "BadRequest")
        # The log says what was asked for, as far as it was understood.
        assert {(each["method"], each["path"]) for each in access_lines(server)} == {("POST", "/invocations")}
