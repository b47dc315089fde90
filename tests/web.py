"""A real HTTP server for tests of what asks one."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock


class Handler(BaseHTTPRequestHandler):
    """Says nothing of its own."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The server's address, without a proxy between it and this process's requests."""
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    with mock.patch.dict("os.environ", dict.fromkeys(names, "")):
        yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()
