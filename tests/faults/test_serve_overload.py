"""More requests than a server can answer, and more bytes than it can hold."""

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_serve import artifact
from tests.conftest import both_engines_in_full
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, serving, until
from tests.faults.client import connect, exchange, read
from tests.faults.corpus import typed

SECONDS = 0.2  # that a prediction takes, whatever else the machine does
WORKERS = 2
LIMIT = 2  # seconds
CALLERS = 40  # each would have to wait 4 s: twice the limit
GOOD = typed(picture("red"), "image/jpeg")
SLOW = """
import time
from pathlib import Path

def predict_fn(batch, model):
    with Path("/tmp/computed").open("a") as file:
        file.write("x")
    time.sleep(SECONDS)
    return model.probabilities(batch)
"""


@contextlib.contextmanager
def slow_server(folder: Path, queue: int, kind: str, seconds: float = SECONDS) -> Iterator[tuple[Server, Path]]:
    """A server whose every prediction takes `seconds`, and a file with a byte for each that was computed."""
    code = write_model(folder / "model") / artifact.CODE
    code.mkdir()
    env = {
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": str(LIMIT),
        "BYOC_QUEUE_SIZE": str(queue),
    }
    program = code / "inference.py"
    counted = "/tmp/computed" if kind == "docker" else str(folder / "computed")
    program.write_text(SLOW.replace("/tmp/computed", counted).replace("SECONDS", str(seconds)))
    with serving(folder / "model", folder / "run", env, kind=kind) as server:
        yield server, server.tmp / "computed" if kind == "docker" else folder / "computed"


def ask(port: int, callers: int, seconds: float, settled: float = 0) -> tuple[Counter[int], float]:
    """Statuses that `callers` who ask on and on get, and good answers a second after the first `settled` seconds."""
    begun = time.monotonic()
    statuses, good = Counter[int](), [0]
    lock = threading.Lock()

    def caller() -> None:
        while time.monotonic() - begun < seconds:
            status = exchange(port, GOOD).status
            with lock:
                statuses[status] += 1
                good[0] += status == 200 and settled <= time.monotonic() - begun < seconds
            if status == 503:
                time.sleep(0.05)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, good[0] / (seconds - settled)


@both_engines_in_full
@pytest.mark.parametrize("queue", [100, 30])
def test_overload_takes_nothing_from_those_that_can_be_answered(tmp_path: Path, queue: int, kind: str) -> None:
    """With a queue of 100 all wait, and most in vain; with one of 30 the rest is refused at once."""
    with slow_server(tmp_path, queue, kind) as (server, computed):
        capacity = WORKERS / SECONDS
        _, before = ask(server.port, WORKERS, 3)
        assert before > 0.8 * capacity
        sofar = computed.stat().st_size
        statuses, rate = ask(server.port, CALLERS, 8, settled=LIMIT)
        assert rate >= 0.9 * before, statuses
        assert set(statuses) <= {200, 503, 504}
        assert server.ping() == 200
        # Nothing is computed for a caller who has been answered 504.
        assert computed.stat().st_size - sofar <= 1.1 * statuses[200] + WORKERS
        _, after = ask(server.port, WORKERS, 3)
        assert after >= 0.9 * before


@both_engines_in_full
def test_nothing_is_computed_for_callers_who_have_gone(tmp_path: Path, kind: str) -> None:
    with slow_server(tmp_path, 100, kind, 1) as (server, computed), contextlib.ExitStack() as stack:
        assert exchange(server.port, GOOD).status == 200
        sofar = computed.stat().st_size
        busy = [stack.enter_context(connect(server.port)) for _ in range(WORKERS)]
        for connection in busy:
            connection.sendall(GOOD)
        until(lambda: computed.stat().st_size == sofar + WORKERS, "both workers busy", 5)
        for _ in range(20):
            with connect(server.port) as connection:
                connection.sendall(GOOD)
        assert [read(connection).status for connection in busy] == [200] * WORKERS
        assert exchange(server.port, GOOD).status == 200
        assert computed.stat().st_size == sofar + WORKERS + 1


def padded(size: int) -> bytes:
    """A request with an image, and as many bytes after its end as make `size` bytes of body."""
    image = picture("red")
    return typed(image + bytes(size - len(image)), "image/jpeg")


def form(size: int) -> bytes:
    """The same as a file in a form."""
    lines = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n', b"\r\n--b--\r\n"
    image = picture("red")
    return typed(lines[0] + image + bytes(size - len(image)) + lines[1], "multipart/form-data; boundary=b")


def at_once(port: int, count: int, raw: bytes) -> Counter[int]:
    """The statuses of so many equal requests, of which none is answered before all are under way."""
    size = len(raw)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(port, 120)) for _ in range(count)]
        for connection in connections:
            connection.sendall(raw[: size // 2])

        def rest(connection: socket.socket) -> int:
            with contextlib.suppress(ConnectionError):  # refused before its end
                connection.sendall(raw[size // 2 :])
            return read(connection).status

        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return Counter(pool.map(rest, connections))


def test_large_bodies_that_the_limit_allows_are_answered_side_by_side(tmp_path: Path) -> None:
    env = {"SAGEMAKER_MAX_REQUEST_SIZE": "100000000"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env) as server:
        assert at_once(server.port, 2, padded(60_000_000)) == {200: 2}
        assert at_once(server.port, 2, form(60_000_000)) == {200: 2}
        assert exchange(server.port, padded(100_000_001)).status == 413


@pytest.mark.docker
@pytest.mark.parametrize(
    ("memory", "make", "size"),
    [("4g", padded, 300_000_000), ("2g", padded, 300_000_000), ("1g", padded, 40_000_000), ("2g", form, 200_000_000)],
)
def test_bodies_that_memory_does_not_hold_are_refused_and_nothing_is_killed(
    tmp_path: Path, memory: str, make: Callable[[int], bytes], size: int
) -> None:
    env = {"SAGEMAKER_MAX_REQUEST_SIZE": str(2**30)}
    options = ("--memory", memory, "--memory-swap", memory)
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, prefix=options, kind="docker") as server:
        workers = server.children()
        assert ("larger ones are refused: give the container more memory" in server.log()) == (memory != "4g")
        statuses = at_once(server.port, 4, make(size))
        assert set(statuses) <= {200, 503}, server.log()
        assert statuses[200] >= 1
        assert exchange(server.port, GOOD).status == 200
        assert server.children() == workers
        until(lambda: server.ping() == 200, "/ping green", 5)
