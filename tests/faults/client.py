"""A caller that sends bytes as they are, and an observer that asks on and on and notes what it gets."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.contract.models import picture
from tests.faults.corpus import typed

ANSWER_SECONDS = 60.0  # as the platform's; the server's own deadline is 55


@dataclass(frozen=True)
class Reply:
    """`status` is 0 where the connection ended without an answer."""

    status: int
    body: bytes


def connect(port: int, timeout: float = ANSWER_SECONDS) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def read(connection: socket.socket) -> Reply:
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return Reply(response.status, response.read())
    except (http.client.HTTPException, ConnectionError):
        return Reply(0, b"")
    finally:
        response.close()


def exchange(port: int, raw: bytes, timeout: float = ANSWER_SECONDS) -> Reply:
    """Raises TimeoutError where nothing comes in time."""
    with connect(port, timeout) as connection:
        # A server that refuses at once may close before all is sent; its answer is there all the same.
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw)
        return read(connection)


def everything(port: int, raw: bytes, timeout: float = 20, quiet: float = 20, pieces: int = 0) -> tuple[bytes, bool]:
    """All that is answered, and whether the connection ended: waits so long for an answer, and then for more of it.

    With `pieces` the request is sent in pieces of so many bytes.
    """
    received = b""
    with connect(port, timeout) as connection, contextlib.suppress(ConnectionError):
        for at in range(0, len(raw), pieces or len(raw)):
            connection.sendall(raw[at : at + (pieces or len(raw))])
        try:
            while more := connection.recv(65536):
                received += more
                connection.settimeout(quiet)
        except TimeoutError:
            return received, False
    return received, True


@dataclass
class Observer:
    """The answers of /ping and those to callers, over time: (seconds, status), 0 where there was no answer."""

    port: int
    pings: list[tuple[float, int]] = field(default_factory=list)
    calls: list[tuple[float, float, int]] = field(default_factory=list)  # sent, answered, status

    def longest_lie(self) -> float:
        """Seconds for which /ping went on to say 200 while every call failed, at most.

        A call that was refused because there were too many (503) has not failed.
        """
        longest = 0.0
        since: float | None = None
        told = sorted([(t, "ping", s) for t, s in self.pings] + [(t, "call", s) for _, t, s in self.calls])
        failing = False
        for now, what, status in told:
            if what == "call" and status != 503:
                failing = status in (0, *range(500, 600))
            if not failing or (what == "ping" and status != 200):
                since = None
            elif since is None:
                since = now
            else:
                longest = max(longest, now - since)
        return longest

    def slowest(self) -> float:
        return max((answered - sent for sent, answered, _ in self.calls), default=0.0)

    def statuses(self) -> set[int]:
        return {status for _, _, status in self.calls}


@contextlib.contextmanager
def observing(port: int, callers: int = 2, pause: float = 0.1) -> Iterator[Observer]:
    """Ask /ping and send good pictures until the end of the block."""
    observer, over = Observer(port), threading.Event()
    good = typed(picture("red"), "image/jpeg")
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    def status(raw: bytes) -> int:
        try:
            return exchange(port, raw).status
        except OSError:
            return 0

    def repeat(once: Callable[[], None]) -> None:
        while not over.wait(pause):
            once()

    def look() -> None:
        found = status(ping)
        observer.pings.append((time.monotonic(), found))

    def call() -> None:
        sent = time.monotonic()
        found = status(good)
        observer.calls.append((sent, time.monotonic(), found))

    threads = [threading.Thread(target=repeat, args=(what,)) for what in (look, *[call] * callers)]
    for thread in threads:
        thread.start()
    try:
        yield observer
    finally:
        over.set()
        for thread in threads:
            thread.join()
