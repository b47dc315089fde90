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
from mms.arg_parser import ArgParser
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
    """The model server's process that forks the workers. They print where it prints, without pipes of their own."""

    parent = os.getpid()

    def start_worker(self, cl_socket: socket.socket) -> None:
        """Be a worker: load the model and answer requests until the Java server closes the connection."""
        try:
            die_with_parent(self.parent)
            self.sock.close()
            while True:
                command, message = model_service_worker.retrieve_msg(cl_socket)
                answer = self.load(message) if command == b"L" else self.service.predict(message)
                # The length comes first, for a reader that gets an answer in pieces.
                cl_socket.sendall(len(answer).to_bytes(4, "big") + answer)
                if self.service is None:
                    break
        except ConnectionError:
            pass
        except Exception:
            LOG.exception("the worker failed")
        finally:
            sys.stdout.flush()
            os._exit(1)  # whatever threads somebody's program has left

    def load(self, message: dict[str, Any]) -> bytes:
        """Load the model. The answer: our process id, or why the model cannot be loaded."""
        from container_serve.worker.service import Service

        begun, settings = time.perf_counter(), Settings.read(os.environ)
        log.configure(settings.log_level)
        logging.getLogger("mms").setLevel(logging.WARNING)  # its metrics, a line per request
        named = os.fsdecode(message["ioFileDescriptor"])
        folder = Path(named).resolve() if settings.multi_model else settings.model_dir
        try:
            answers = service.Service(message["modelName"].decode(), str(folder), None, None, None, 1)
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
    # The Java server waits for lines of the model server's own log.
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    otf_message_handler._retrieve_buffer = read  # by the name under which its functions call it
    args = ArgParser.model_service_worker_args().parse_args()
    worker = Worker(args.sock_type, args.sock_name, args.host, args.port)
    # Where the temporary folder forbids programs, Java cannot use Unix sockets and speaks TCP with this process; the
    # port of a process that was killed would be closed to the next one for a minute.
    worker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    worker.run_server()
