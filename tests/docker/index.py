"""HTTP servers on loopback for builds and pushes, one of them a package index with a CPU build of torch."""

import functools
import http.server
import os
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TORCH_WHEEL = "torch-2.13.0+cpu-*.whl"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@contextmanager
def http_server(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def torch_index() -> Iterator[str | None]:
    """The address of an index with a CPU build of torch: PyTorch's, or one over a wheel in pip's find-links here."""
    try:
        with urllib.request.urlopen(f"{TORCH_INDEX}/torch/", timeout=10):
            pass
    except OSError:
        wheels = [
            path for links in os.environ.get("PIP_FIND_LINKS", "").split() for path in Path(links).glob(TORCH_WHEEL)
        ]
        if not wheels:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "torch").mkdir()
            (Path(folder) / "torch" / wheels[0].name).symlink_to(wheels[0])
            with http_server(functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)) as port:
                yield f"http://127.0.0.1:{port}"
    else:
        yield TORCH_INDEX
