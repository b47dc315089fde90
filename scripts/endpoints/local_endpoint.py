"""An endpoint on this machine, through the SDK's local mode: its image, its start, its end."""

import signal
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from container_serve.settings import MAX_PORT
from local_test import engine as local_engine
from local_test.errors import LocalError
from scripts.aws.errors import CloudError
from scripts.console.command import progress, tell_loading
from scripts.images import engine
from scripts.jobs.local_mode import REGION, Engine, log_line

if TYPE_CHECKING:
    from scripts.jobs import sdk

FIRST_PORT = 8080
START_SECONDS = 600.0
POLL_SECONDS = 0.2
_DIRECT = requests.Session()
_DIRECT.trust_env = False  # straight there: a proxy knows nothing of this machine's ports


@dataclass(frozen=True)
class Place:
    """Where it runs: the engine of this machine, and an image that is there. Raises CloudError where one is missing."""

    engine: Engine
    image: str

    @classmethod
    def find(cls, image: str | None) -> "Place":
        """`image`, or the one made of the files as they are now."""
        here = Engine()
        here.prune()
        if image is None:
            try:
                image = local_engine.find_image("serve")
            except LocalError as error:
                raise CloudError(str(error)) from None
            if image is None:
                raise CloudError("there is no serving image of these files yet: build it with scripts/build.sh serve")
        engine.need_image(here.client, image)
        return cls(here, image)

    def need_free(self, port: int | None) -> None:
        """Raises CloudError where another program listens at the port."""
        if port is not None and not _is_free(port):
            raise CloudError(f"--port {port} is taken: give another one, or none")

    def labels(self) -> Mapping[str, str]:
        found = engine.find_image(self.engine.client, self.image)
        return found.labels if found else {}

    @contextmanager
    def serve(self, work: Path, model: Path, environment: Mapping[str, str], port: int | None) -> Iterator[str]:
        """The URL of the unpacked model's server, once /ping there is 200; afterwards nothing of it is left.

        `work`: a folder to work in. Raises CloudError where it does not come up.
        """
        self.need_free(port)
        port = port or next(filter(_is_free, range(FIRST_PORT, MAX_PORT)))
        tell_loading()
        progress(f"starting {self.image} through the SageMaker SDK's local mode")
        from scripts.jobs import sdk

        label = uuid.uuid4().hex
        with sdk.LocalMode(work, self.engine.service(label, work), REGION, _log, port) as mode:
            mode.serve(self.image, model, {**self.engine.environment(), **environment})
            url = f"http://localhost:{port}"
            try:
                _until_ready(mode, url)
                yield url
            finally:
                with _undisturbed():
                    self.engine.stop(label)
                    mode.end_compose(5.0)
                    # Only now can Compose make nothing more.
                    self.engine.remove(label)


def wait(url: str) -> None:
    """Until Ctrl-C or SIGTERM. Raises CloudError when the server is gone before."""
    progress("serving on all of this machine's interfaces; Ctrl-C ends it")
    gone = 0
    try:
        while gone < 5:
            time.sleep(1)
            gone = 0 if _ping(url) is not None else gone + 1
    except KeyboardInterrupt:
        progress("stopping")
        return
    raise CloudError(f"the server at {url} has ended; its log stands above")


def _until_ready(mode: "sdk.LocalMode", url: str) -> None:
    begun = time.monotonic()
    while _ping(url) != 200:
        if mode.problem:
            raise CloudError(f"the container did not start: {mode.problem}; its log stands above")
        if time.monotonic() - begun > START_SECONDS:
            raise CloudError(f"the server was not ready within {START_SECONDS:.0f} s; its log stands above")
        time.sleep(POLL_SECONDS)
    progress(f"ready after {time.monotonic() - begun:.1f} s")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not break it off."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _log(line: str) -> None:
    if text := log_line(line)[0].strip():
        progress(f"  {text}")


def _ping(url: str) -> int | None:
    """The status of /ping, None where nobody listens."""
    with suppress(requests.RequestException):
        return _DIRECT.get(f"{url}/ping", timeout=5).status_code
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return True
    return False
