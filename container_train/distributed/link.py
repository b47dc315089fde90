"""A line from one host of a job to another: JSON objects, one a line, and a word now and then that one is still there.

Nothing that comes over it is run or unpickled: it can make a job stop or fail, no more.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

BEAT_SECONDS, SILENT_SECONDS = 1.0, 30.0
CONNECT_SECONDS = 1.0
LONGEST = 1 << 20  # bytes at a time: whoever sends more is no host of the job


class Link:
    """One end. It is `lost` when the other end is closed, or has been silent for SILENT_SECONDS."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream, self.buffer, self.closed = stream, b"", False
        self.heard = self.spoke = time.monotonic()

    @classmethod
    def to(cls, host: str, port: int) -> "Link | None":
        """None where nobody listens (yet)."""
        try:
            return cls(socket.create_connection((host, port), timeout=CONNECT_SECONDS))
        except OSError:
            return None

    @property
    def lost(self) -> bool:
        return self.closed or time.monotonic() - self.heard > SILENT_SECONDS

    def send(self, message: Mapping[str, Any]) -> None:
        self.spoke = time.monotonic()
        try:
            self.stream.settimeout(CONNECT_SECONDS)
            self.stream.sendall(json.dumps(message).encode() + b"\n")
            self.stream.setblocking(False)
        except OSError:
            self.closed = True

    def beat(self) -> None:
        """Be heard of."""
        if time.monotonic() - self.spoke > BEAT_SECONDS:
            self.send({})

    def messages(self) -> list[dict[str, Any]]:
        """What has come since the last call, but for beats."""
        try:
            while (content := self.stream.recv(65536)) and len(self.buffer) < LONGEST:
                self.buffer += content
                self.heard = time.monotonic()
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        *lines, self.buffer = self.buffer.split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict) and message:
                    found.append(message)
        return found

    def close(self) -> None:
        self.stream.close()


def listen(port: int) -> socket.socket:
    """Raises OSError where the port is taken."""
    listener = socket.create_server(("", port), backlog=128)
    listener.setblocking(False)
    return listener


def accept(listener: socket.socket) -> list[Link]:
    """Those who have called since the last time."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(Link(listener.accept()[0]))
    return found
