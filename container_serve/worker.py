"""The program of a worker process: multi-model-server's, in an environment that we prepared.

The Java server starts one of these per model; it loads no model itself, but forks a child for each worker.
"""

import logging
import os
import runpy
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mms import service
from mms.protocol import otf_message_handler

from container_serve.processes import die_with_parent

BUFFER_BYTES = 2**16


class Socket(socket.socket):
    """One whose port can be taken again at once.

    Where the temporary folder forbids programs, Java cannot use Unix sockets and speaks TCP with this process; the port
    of a process that was killed would be closed to the next one for a minute.
    """

    def bind(self, address: Any) -> None:
        if self.family == socket.AF_INET:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().bind(address)


class Connection:
    """A worker's reads from its front end; the model server's own code asks the kernel for each field of a request."""

    stream: Any = None  # of the one connection that a worker has in its life

    @classmethod
    def read(cls, connection: socket.socket, length: int) -> bytes:
        """The next `length` bytes. Raises ValueError where the connection ends before."""
        if cls.stream is None:
            cls.stream = connection.makefile("rb", buffering=BUFFER_BYTES)
        content: bytes = cls.stream.read(length)
        if len(content) < length:
            raise ValueError("Frontend disconnected")
        return content


def framed(write: Callable[..., bytes]) -> Callable[..., bytes]:
    """Put the length before a message, for a reader that gets it in pieces."""

    def write_framed(*arguments: Any, **named: Any) -> bytes:
        message = write(*arguments, **named)
        return len(message).to_bytes(4, "big") + message

    return write_framed


def prepare() -> None:
    """Take the place of some of the model server's own functions."""
    otf_message_handler._retrieve_buffer = Connection.read
    # By these names the model server's modules call them.
    service.create_predict_response = framed(service.create_predict_response)
    otf_message_handler.create_load_model_response = framed(otf_message_handler.create_load_model_response)
    socket.socket = Socket  # type: ignore[misc]


def main() -> None:
    die_with_parent(os.getppid())
    import container_serve.handler  # noqa: F401  # before the fork: a respawned worker finds it imported

    logging.raiseExceptions = False  # a worker that is being ended has nobody left who reads its log
    prepare()
    spec = find_spec("mms.model_service_worker")
    assert spec is not None
    assert spec.origin is not None
    runpy.run_path(spec.origin, run_name="__main__")
