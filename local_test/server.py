"""A server on this machine: its port, and when it is ready."""

import contextlib
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from local_test.child import Child
from local_test.engine import Engine
from local_test.errors import LocalError

READY_SECONDS = 120.0
POLL_SECONDS = 0.1
FREE_PORTS = range(20000, 32000)  # multi-model-server takes no port as high as the kernel's own choice
# Straight there: a proxy knows nothing of this machine's ports.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        return True
    return False


def check_port(port: int, address: str = "127.0.0.1") -> None:
    """Raises LocalError when something else has the port."""
    if not is_free(port, address):
        raise LocalError(f"--port {port} is taken: give another one")


def free_port(ports: range = FREE_PORTS, address: str = "127.0.0.1") -> int:
    """One of `ports`. Raises LocalError where none is free."""
    for port in ports:
        if is_free(port, address):
            return port
    raise LocalError(f"no free port from {ports.start} to {ports.stop - 1}: give one with --port")


def ping(url: str) -> int | None:
    """The status of URL/ping, None where nobody answers."""
    try:
        with _DIRECT.open(f"{url}/ping", timeout=5):
            return 200
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return None


def wait_until_ready(url: str, ended: Callable[[], str | None], seconds: float = READY_SECONDS) -> None:
    """Wait for /ping to be 200. `ended`: the reason why that will not be, None while it may. Raises LocalError."""
    until = time.monotonic() + seconds
    while ping(url) != 200:
        if reason := ended():
            raise LocalError(reason)
        if time.monotonic() > until:
            raise LocalError(f"the server was not ready after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def serving(
    where: Engine, model: Path, port: int, log: Path, *, echo: bool = False, page: bool = False
) -> Iterator[Child]:
    """The server of a model folder, ready at http://127.0.0.1:port, stopped afterwards.

    Raises LocalError; what the server said last is added to an error, unless `echo` has shown it.
    """
    check_port(port)
    server = where.serve(model, port, log, echo=echo, page=page)

    def ended() -> str | None:
        code = server.ended()
        return None if code is None else f"the server ended with exit code {code} before it was ready"

    try:
        wait_until_ready(f"http://127.0.0.1:{port}", ended)
        yield server
    except LocalError as error:
        if echo:
            raise
        raise LocalError(f"{error}; the server's last lines:\n{server.tail()}", error.code) from None
    finally:
        server.stop()
