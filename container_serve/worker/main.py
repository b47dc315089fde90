"""The program of a worker process: multi-model-server's, in an environment that we prepared.

The Java server starts one of these per model; it loads no model itself, but forks a child for each worker.
"""

import gc
import io
import logging
import os
import socket
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from mms import model_service_worker, service
from mms.protocol import otf_message_handler

from container_serve import log
from container_serve.errors import ServeError
from container_serve.processes import die_with_parent
from container_serve.settings import Settings

LOG = logging.getLogger("worker")
BUFFER_BYTES = 2**16
MESSAGE_LENGTH = 500  # so that it fits into one write to a pipe


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


class Worker(model_service_worker.MXNetModelServiceWorker):  # type: ignore[misc]
    """The model server's process that forks the workers of one model."""

    parent = os.getpid()

    def __init__(self, socket_type: str, address: str, model: str, folder: str) -> None:
        """`socket_type` is unix or tcp, `address` the path or the port that belongs to it."""
        super().__init__(socket_type, address, None, address)
        self.model, self.folder = model, folder

    def start_worker(self, cl_socket: socket.socket) -> None:
        """Be a worker: load the model and answer requests until the Java server closes the connection."""
        try:
            die_with_parent(self.parent)
            self.sock.close()
            answer = self.load()
            while True:
                # The length comes first, for a reader that gets an answer in pieces.
                cl_socket.sendall(len(answer).to_bytes(4, "big") + answer)
                if self.service is None:
                    break
                answer = self.service.predict(model_service_worker.retrieve_msg(cl_socket)[1])
        except ConnectionError:
            pass
        except Exception:
            LOG.exception("the worker failed")
        finally:
            sys.stdout.flush()
            os._exit(1)  # whatever threads somebody's program has left

    def load(self) -> bytes:
        """Load the model. The answer: our process id, or why the model cannot be loaded."""
        from container_serve.worker.service import Service

        begun, settings = time.perf_counter(), Settings.read(os.environ)
        log.configure(settings.log_level)
        logging.getLogger("mms").setLevel(logging.WARNING)  # its metrics, a line per request
        folder = Path(self.folder).resolve() if settings.multi_model else settings.model_dir
        try:
            answers = service.Service(self.model, str(folder), None, None, None, 1)
            answers._entry_point = Service(settings, folder, answers.context).answer
            self.service = answers
            LOG.info("model loaded in %.2f s, %d thread(s)", time.perf_counter() - begun, settings.threads or 1)
            status, text = 200, str(os.getpid())
        except (Exception, SystemExit) as error:
            status, text = 500, str(error) or type(error).__name__
            if not isinstance(error, ServeError):  # of somebody's own program
                LOG.exception("%s", folder)
                text = f"{folder}: {type(error).__name__}: {text}"
        one_line = " ".join(text.split())[:MESSAGE_LENGTH].encode(errors="replace").decode()
        answer: bytes = otf_message_handler.create_load_model_response(status, one_line)
        return answer


def main() -> None:
    die_with_parent(os.getppid())
    # Before the fork: a respawned worker finds them imported, and all share their memory.
    import container_serve.worker.service  # noqa: F401
    from container_serve import predictor
    from container_serve.worker import user_code

    settings = Settings.read(os.environ)
    if settings.multi_model or user_code.is_absent(settings):
        predictor.preload()
    gc.freeze()  # what is imported stays shared: a collection would write to all of it
    if isinstance(sys.stdout, io.TextIOWrapper):  # whole lines: all workers print into one pipe
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
    logging.raiseExceptions = False  # a worker that is being ended has nobody left who reads its log
    log.configure(logging.WARNING)  # the model server's own lines say nothing
    otf_message_handler._retrieve_buffer = read  # by the name under which its functions call it
    worker = Worker(*sys.argv[1:])
    # Where the temporary folder forbids programs, Java cannot use Unix sockets and speaks TCP with this process; the
    # port of a process that was killed would be closed to the next one for a minute.
    worker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    worker.run_server()


if __name__ == "__main__":
    main()
