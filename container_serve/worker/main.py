"""The program of a worker process: multi-model-server's, in an environment that we prepared.

The Java server starts one of these per model; it loads no model itself, but forks a child for each worker.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from mms import model_service_worker, service
from mms.arg_parser import ArgParser
from mms.protocol import otf_message_handler

from container_serve.processes import die_with_parent

BUFFER_BYTES = 2**16


@cache
def _stream(connection: socket.socket) -> Any:
    return connection.makefile("rb", buffering=BUFFER_BYTES)


def read(connection: socket.socket, length: int) -> bytes:
    """The next `length` bytes, buffered: the model server's own code asks the kernel for each field of a request.

    Raises ConnectionError where the connection ends before.
    """
    content: bytes = _stream(connection).read(length)
    if len(content) < length:
        raise ConnectionError("Frontend disconnected")
    return content


def framed(write: Callable[..., bytes]) -> Callable[..., bytes]:
    """Put the length before a message, for a reader that gets it in pieces."""

    def write_framed(*arguments: Any, **named: Any) -> bytes:
        message = write(*arguments, **named)
        return len(message).to_bytes(4, "big") + message

    return write_framed


def main() -> None:
    die_with_parent(os.getppid())
    import container_serve.worker.handler  # noqa: F401  # before the fork: a respawned worker finds it imported

    logging.raiseExceptions = False  # a worker that is being ended has nobody left who reads its log
    # The Java server waits for lines of the model server's own log.
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    # In place of the model server's own functions, by the names under which its modules call them.
    otf_message_handler._retrieve_buffer = read
    service.create_predict_response = framed(service.create_predict_response)
    model_service_worker.create_load_model_response = framed(model_service_worker.create_load_model_response)
    args = ArgParser.model_service_worker_args().parse_args()
    worker = model_service_worker.MXNetModelServiceWorker(
        args.sock_type, args.sock_name, args.host, args.port, tmp_dir=args.tmp_dir
    )
    # Where the temporary folder forbids programs, Java cannot use Unix sockets and speaks TCP with this process; the
    # port of a process that was killed would be closed to the next one for a minute.
    worker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    worker.run_server()
