"""The load generator against a server whose answers are known."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench import load


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"close":
            self.close_connection = True
            return
        time.sleep(0.02)
        answer = b"1234"
        self.send_response(503 if body == b"busy" else 200)
        if body == b"chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"4\r\n" + answer + b"\r\n0\r\n\r\n")
            return
        if body == b"timed":
            self.send_header("Server-Timing", "decode;dur=2.5, model;dur=7.5")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_every_answer_is_counted_by_its_status(port: int) -> None:
    found = load.run(port, [b"good", b"chunked", b"busy", b"close"], connections=3, seconds=0.5)
    assert set(found.statuses) == {200, 503, 0}
    assert found.statuses[200] == len(found.seconds) > 0
    assert found.quantile(0) >= 20
    assert found.quantile(0) <= found.quantile(0.5) <= found.quantile(0.99)
    assert found.rate == pytest.approx(found.statuses[200] / found.wall)


@pytest.mark.timing
def test_what_the_server_says_it_computed_in_is_told_from_the_rest(port: int) -> None:
    found = load.run(port, [b"timed", b"good"], connections=1, seconds=0.3)
    assert 0 < len(found.around) < len(found.seconds)
    assert 10 <= load.quantile(found.around, 0) == pytest.approx(load.quantile(found.seconds[::2], 0) - 10)


def test_nobody_listens() -> None:
    found = load.run(1, [b"x"], connections=1, seconds=0.05)
    assert set(found.statuses) == {0}
    assert found.rate == 0
