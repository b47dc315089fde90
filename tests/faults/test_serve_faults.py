"""Faults of the model, the workers, the disk and the callers of a running server: what /ping says, what callers get.

tests/faults/README.md has the whole table, with the cases that are tested elsewhere.
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from container_serve import artifact
from tests.conftest import FULL, both_engines, both_engines_in_full, need
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, free_port, gone, one_line, running, serving, until
from tests.faults.client import connect, exchange, observing, read
from tests.faults.corpus import typed

LIE_SECONDS = 2.5  # 2 promised, and what a look at /ping takes on a busy machine
NOBODY = 65534
GOOD = typed(picture("red"), "image/jpeg")
SWITCHED = """
import os, time
from pathlib import Path

def predict_fn(batch, model):
    if Path(__file__).with_name("switch").exists():
        {fault}
    return model.probabilities(batch)
"""


def switched_model(directory: Path, fault: str) -> tuple[Path, Path]:
    """A model whose predictions go wrong as long as a file exists; that file."""
    code = write_model(directory) / artifact.CODE
    code.mkdir()
    (code / "inference.py").write_text(SWITCHED.format(fault=fault))
    return directory, code / "switch"


def refused(model: Path, folder: Path, prefix: tuple[str, ...] = (), kind: str = "process") -> str:
    """The one line with which the server ends."""
    with serving(model, folder, ready=False, prefix=prefix, kind=kind) as server:
        assert server.process.wait(60) == 1
        assert list(server.tmp.iterdir()) == []
        return one_line(server.err.read_text())


def in_flight(server: Server) -> int:
    return int(server.request("GET", "/ping").json()["in_flight"])


def loaded(server: Server) -> int:
    """Workers that hold the model."""
    return int(server.request("GET", "/ping").json()["workers"])


def replaced(server: Server, old: psutil.Process) -> bool:
    """Return True if both workers hold the model, and neither is that one."""
    return len({*server.children()} - {old}) == 2 and loaded(server) == 2


# --- the artifact ---


@both_engines_in_full
@pytest.mark.parametrize("place", range(20 if FULL else 3))
def test_an_artifact_that_is_truncated_anywhere_is_refused(tmp_path: Path, place: int, kind: str) -> None:
    model = write_model(tmp_path / "model")
    dice = random.Random(place)
    damaged = model / ("model.json", "model.xml", "model.bin")[place % 3]
    os.truncate(damaged, dice.randrange(damaged.stat().st_size))
    assert damaged.name in refused(model, tmp_path / "run", kind=kind)


@both_engines_in_full
@pytest.mark.parametrize("place", range(20 if FULL else 3))
def test_a_bit_that_flips_anywhere_is_noticed(tmp_path: Path, place: int, kind: str) -> None:
    model = write_model(tmp_path / "model")
    dice = random.Random(place)
    damaged = model / ("model.xml", "model.bin", "model.json")[place % 3]
    content = bytearray(damaged.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    damaged.write_bytes(content)
    assert f"{damaged.name}: " in refused(model, tmp_path / "run", kind=kind)


@pytest.mark.parametrize("name", ["model.json", "model.bin", "."])
def test_a_file_without_the_right_to_read_it(tmp_path: Path, name: str) -> None:
    become = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
    need(subprocess.run([*become, "true"], capture_output=True).returncode == 0, "unshare --user")
    model = write_model(tmp_path / "model")
    (model / name).chmod(0)
    try:
        assert "Permission denied" in refused(model, tmp_path / "run", become)
    finally:
        (model / name).chmod(0o755)


# --- the handler ---

# As far as the server sees, these end the process as the two that are always tested do.
ENDS = [pytest.param(end, marks=pytest.mark.full) for end in ("os._exit(3)", "os.abort()")]


@pytest.mark.timing
@both_engines
def test_ping_is_red_while_every_prediction_fails(tmp_path: Path, kind: str) -> None:
    model, switch = switched_model(tmp_path / "model", "raise KeyError('weights')")
    with serving(model, tmp_path / "run", kind=kind) as server:
        workers = server.children()
        with observing(server.port) as observer:
            until(lambda: 200 in observer.statuses(), "a good answer", 10)
            switch.touch()
            until(lambda: server.request("GET", "/ping").json()["state"] == "failing", "/ping says why", 10)
            assert server.ping() == 503
            until(lambda: "every prediction fails" in server.log(), "the log says so", 10)
            switch.unlink()
            until(lambda: server.ping() == 200, "/ping green again", 10)
        assert observer.longest_lie() < LIE_SECONDS
        assert observer.statuses() == {200, 500}
        assert server.children() == workers


@both_engines_in_full
def test_ping_stays_green_while_some_predictions_fail(tmp_path: Path, kind: str) -> None:
    model, switch = switched_model(tmp_path / "model", "raise KeyError('weights')")
    with serving(model, tmp_path / "run", kind=kind) as server:
        deadline = time.monotonic() + 4
        seen: set[int | None] = set()
        while time.monotonic() < deadline:
            switch.touch()
            seen.add(exchange(server.port, GOOD).status)
            switch.unlink()
            seen |= {exchange(server.port, GOOD).status, server.ping()}
        assert seen == {200, 500}


@pytest.mark.timing
@both_engines_in_full
@pytest.mark.parametrize("callers", [pytest.param(1, marks=pytest.mark.full), 4])
def test_ping_is_red_while_every_prediction_hangs(tmp_path: Path, kind: str, callers: int) -> None:
    model, switch = switched_model(tmp_path / "model", "time.sleep(60)")
    with serving(model, tmp_path / "run", {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}, kind=kind) as server:
        with observing(server.port, callers=callers) as observer:
            until(lambda: 200 in observer.statuses(), "a good answer", 10)
            switch.touch()
            until(lambda: 504 in observer.statuses(), "a timeout", 15)
            until(lambda: server.ping() == 503, "/ping red", 10)
            time.sleep(8)  # it stays so for as long as requests come
            switch.unlink()
            until(lambda: server.ping() == 200, "/ping green again", 20)
            answered = len(observer.calls)
            until(lambda: 200 in {status for _, _, status in observer.calls[answered:]}, "a good answer", 10)
        assert observer.longest_lie() < LIE_SECONDS
        assert observer.slowest() < 10
        assert observer.statuses() <= {200, 500, 504}


@both_engines_in_full
@pytest.mark.parametrize("fault", ["raise SystemExit(3)", "os.kill(os.getpid(), 11)", *ENDS])
def test_a_handler_that_ends_its_process(tmp_path: Path, fault: str, kind: str) -> None:
    model, switch = switched_model(tmp_path / "model", fault)
    with serving(model, tmp_path / "run", kind=kind) as server:
        switch.touch()
        assert exchange(server.port, GOOD).status == 500
        switch.unlink()
        until(lambda: len(server.children()) >= 1 and server.ping() == 200, "/ping green", 15)
        assert exchange(server.port, GOOD).status == 200


# --- the processes ---


@both_engines
def test_one_of_two_workers_that_is_killed_takes_its_own_request_at_most(tmp_path: Path, kind: str) -> None:
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        until(lambda: loaded(server) == 2, "both workers", 20)
        killed, _ = server.children()
        with observing(server.port, pause=0.01) as observer:
            until(lambda: len(observer.calls) > 20, "answers", 20)
            killed.kill()
            until(lambda: loaded(server) == 2 and killed not in server.children(), "another worker", 20)
            answered = len(observer.calls)
            until(lambda: len(observer.calls) > answered + 20, "answers", 20)
        assert {status for _, status in observer.pings} == {200}
        assert sorted(status for _, _, status in observer.calls if status != 200) in ([], [500])


@both_engines_in_full
def test_a_worker_that_is_stopped_is_replaced(tmp_path: Path, kind: str) -> None:
    """It cannot end itself when its request has taken too long."""
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        (stopped,) = server.children()
        stopped.suspend()
        assert exchange(server.port, GOOD).status == 504
        until(lambda: server.ping() == 503, "/ping red", 5)
        until(lambda: gone([stopped]), "the stopped worker ended", 15)
        until(lambda: server.ping() == 200, "/ping green again", 15)
        assert exchange(server.port, GOOD).status == 200
        assert f"worker {stopped.pid} does not come back" in server.log() or kind == "docker"  # it has another number


@both_engines_in_full
def test_workers_that_get_sigterm_are_replaced(tmp_path: Path, kind: str) -> None:
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        until(lambda: loaded(server) == 2, "both workers", 20)
        before = server.children()
        for process, end in ((before[0], "terminate"), (before[1], "kill")):
            getattr(process, end)()
            # Two without the old one: the front end has heard of its death, and gives it no request any more.
            until(partial(replaced, server, process), end, 20)
        assert exchange(server.port, GOOD).status == 200


@pytest.mark.timing
@both_engines_in_full
def test_workers_that_are_killed_on_and_on_come_back_or_the_server_ends(tmp_path: Path, kind: str) -> None:
    """It waits longer and longer before it starts one again, and ends when that lasts more than 10 s."""
    with serving(write_model(tmp_path / "model"), tmp_path / "run", kind=kind) as server:
        family = server.descendants()
        with observing(server.port) as observer:
            over = time.monotonic() + 5
            while time.monotonic() < over:
                kill_workers(server)
                time.sleep(0.2)
            until(lambda: server.ping() == 200 or server.process.poll() is not None, "green or gone", 40)
            answered = len(observer.calls)
            until(lambda: len(observer.calls) > answered + 10, "more calls", 20)
        assert observer.longest_lie() < LIE_SECONDS
        assert observer.slowest() < 55
        if server.process.poll() is None:
            assert {status for _, _, status in observer.calls[answered + 5 :]} == {200}
        else:
            assert "no worker for" in one_line(server.err.read_text())
            assert gone(family)


def kill_workers(server: Server) -> None:
    for process in server.python():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, 9)


@both_engines
@pytest.mark.full
def test_workers_that_are_killed_for_good_end_the_server(tmp_path: Path, kind: str) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", kind=kind) as server:
        family = server.descendants()
        over = time.monotonic() + 60
        while server.process.poll() is None and time.monotonic() < over:
            with contextlib.suppress(AssertionError, psutil.NoSuchProcess):  # its container ends just now
                kill_workers(server)
            time.sleep(0.02)
        assert server.process.wait(5) == 1
        assert "no worker for" in one_line(server.err.read_text())
        assert gone(family)
        assert list(server.tmp.iterdir()) == []


# --- the disk ---


def with_tmpfs(size: str, fill: bool) -> tuple[str, ...]:
    """A prefix that gives the server a small disk of its own for TMPDIR."""
    script = f'mount -t tmpfs -o size={size} tmpfs "$TMPDIR" && '
    if fill:
        # A page is left: where there is none, Python takes another folder of the system's.
        script += '{ head -c 100M /dev/zero >"$TMPDIR/full" 2>/dev/null; truncate -s -4096 "$TMPDIR/full"; } && '
    prefix = ("unshare", "--mount", "sh", "-c", f'{script}exec "$@"', "sh")
    tried = subprocess.run([*prefix, "true"], capture_output=True, env={**os.environ, "TMPDIR": "/mnt"})
    need(tried.returncode == 0, "the right to mount")
    return prefix


def test_a_full_disk_at_the_start_is_said(tmp_path: Path) -> None:
    with serving(
        write_model(tmp_path / "model"), tmp_path / "run", ready=False, prefix=with_tmpfs("64k", True)
    ) as server:
        assert server.process.wait(60) == 1
        assert "No space left on device" in one_line(server.err.read_text())


def test_a_disk_that_fills_up_later_stops_nothing(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", prefix=with_tmpfs("2m", False)) as server:
        disk = Path(f"/proc/{server.process.pid}/root{server.tmp}")
        with contextlib.suppress(OSError), (disk / "full").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        assert shutil.disk_usage(disk).free == 0
        assert exchange(server.port, GOOD).status == 200
        kill_workers(server)
        until(lambda: server.ping() == 503, "/ping red", 5)
        until(lambda: server.ping() == 200, "/ping green again", 20)
        assert exchange(server.port, GOOD).status == 200
        assert server.stop() == 0


class Unread(Server):
    """One whose output goes into a small pipe, which nobody reads."""

    def start(
        self, model: Path, env: Mapping[str, str], prefix: Sequence[str], files: Mapping[str, Any]
    ) -> "subprocess.Popen[bytes]":
        self.unread, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        try:
            return super().start(model, env, prefix, {**files, "stdout": theirs})
        finally:
            os.close(theirs)


@pytest.mark.full
def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    unread = Unread(write_model(tmp_path / "model"), tmp_path / "run", {}, (), free_port())
    with os.fdopen(unread.unread), running(unread) as server:
        family = server.descendants()
        stuck = False
        while not stuck:
            try:
                exchange(server.port, GOOD, 3)
            except TimeoutError:
                stuck = True
        until(lambda: server.ping() != 200, "/ping red", 1)
        assert server.stop(seconds=45) == 1
        assert gone(family)
        assert list(server.tmp.iterdir()) == []


# --- the callers ---


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """One server of each kind, as it is by default, for callers that must not hurt it."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(kind: str) -> Server:
            folder = tmp_path_factory.mktemp(kind)
            return stack.enter_context(serving(write_model(folder / "model"), folder / "run", kind=kind))

        yield start


@both_engines_in_full
def test_half_requests_take_no_place_from_others(tmp_path: Path, kind: str) -> None:
    """More of them than may wait: each ends with 408 after the time limit, and the others never notice."""
    env = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "8", "BYOC_QUEUE_SIZE": "5"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        workers = server.children()
        with contextlib.ExitStack() as stack:
            bodies = [stack.enter_context(connect(server.port, 40)) for _ in range(20)]
            heads = [stack.enter_context(connect(server.port, 40)) for _ in range(20)]
            silent = [stack.enter_context(connect(server.port, 40)) for _ in range(20)]
            begun = time.monotonic()
            for connection in bodies:
                connection.sendall(GOOD[:-100])
            for connection in heads:
                connection.sendall(GOOD[:40])
            until(lambda: in_flight(server) == len(bodies), "the bodies are seen", 4)
            assert {exchange(server.port, GOOD).status for _ in range(10)} == {200}
            assert server.ping() == 200
            replies = [read(connection) for connection in (*bodies, *heads)]
            assert {(reply.status, json.loads(reply.body)["type"]) for reply in replies} == {(408, "RequestTimeout")}
            assert {read(connection).status for connection in silent} == {0}  # closed, nothing was asked
            assert 7.5 < time.monotonic() - begun < 30
        until(lambda: in_flight(server) == 0, "nothing in flight", 5)
        assert server.children() == workers


def chunks(port: int, over: threading.Event) -> None:
    """A body in chunks of a byte: what costs the server most for each byte."""
    while not over.is_set():
        with contextlib.suppress(OSError), connect(port, 5) as connection:
            connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not over.is_set():
                connection.sendall(b"1\r\nx\r\n" * 1000)


def test_a_body_in_too_many_pieces_is_refused(healthy: Callable[[str], Server]) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = healthy("process")
    reply = exchange(server.port, head + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
    assert (reply.status, json.loads(reply.body)["type"]) == (400, "TooManyPieces")


@both_engines_in_full
def test_callers_that_keep_the_front_end_busy_do_not_end_the_server(
    healthy: Callable[[str], Server], kind: str
) -> None:
    """For longer than it may be without a worker: /ping may be late then, but nobody mistakes that for one's end."""
    server = healthy(kind)
    workers, over = server.children(), threading.Event()
    threads = [threading.Thread(target=chunks, args=(server.port, over)) for _ in range(64)]
    for thread in threads:
        thread.start()
    time.sleep(14)
    over.set()
    for thread in threads:
        thread.join()
    assert server.process.poll() is None, server.err.read_text()
    until(lambda: server.ping() == 200, "/ping green", 10)
    assert exchange(server.port, GOOD).status == 200
    assert server.children() == workers


def test_more_connections_than_it_may_have_do_not_end_the_server(tmp_path: Path) -> None:
    prefix, env = ("prlimit", "--nofile=200:200"), {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "14"}
    need(shutil.which("prlimit"), "prlimit")
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, prefix=prefix) as server:
        workers = server.children()
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(connect(server.port))
            assert server.ping() is None
            # Those that say nothing are closed in time, and make room.
            until(lambda: server.ping() == 200, "/ping green", 25)
            assert exchange(server.port, GOOD).status == 200
        assert server.process.poll() is None, server.err.read_text()
        assert server.children() == workers


@both_engines_in_full
def test_large_bodies_of_many_callers_cost_no_worker(healthy: Callable[[str], Server], kind: str) -> None:
    body = random.Random(0).randbytes(6_000_000)
    raw = typed(body, "image/jpeg")
    server = healthy(kind)
    workers, over = server.children(), time.monotonic() + 6

    def ask(_: int) -> set[int]:
        found = set()
        while time.monotonic() < over:
            found.add(exchange(server.port, raw).status)
        return found

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        statuses = set[int]().union(*pool.map(ask, range(60)))
    assert statuses in ({400}, {400, 503})  # as much memory as this machine has
    assert server.children() == workers
    assert "OutOfMemory" not in server.log()
    assert "ERROR" not in server.log()


@both_engines_in_full
def test_a_request_that_drips_in_time_is_answered_and_one_that_does_not_is_ended(tmp_path: Path, kind: str) -> None:
    with serving(
        write_model(tmp_path / "model"), tmp_path / "run", {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "8"}, kind=kind
    ) as server:
        with connect(server.port) as connection:
            for at in range(0, len(GOOD), 50):
                connection.sendall(GOOD[at : at + 50])
                time.sleep(0.03)
            assert read(connection).status == 200
        with connect(server.port, 30) as connection:
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - begun < 30:
                    connection.sendall(GOOD[:1] if time.monotonic() - begun < 0.1 else b"X")
                    time.sleep(0.2)
            assert time.monotonic() - begun < 28  # 8 s until 408, then 10 s in which it may read that


@both_engines_in_full
def test_a_caller_that_does_not_read_is_given_up(tmp_path: Path, kind: str) -> None:
    model = write_model(tmp_path / "model")
    (model / artifact.CODE).mkdir()
    code = "def output_fn(prediction, accept): return 'x' * 6_000_000, 'text/plain'\n"
    (model / artifact.CODE / "inference.py").write_text(code)
    env = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "8", "BYOC_QUEUE_SIZE": "2"}
    with serving(model, tmp_path / "run", env, kind=kind) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(GOOD)
        until(lambda: in_flight(server) == 3, "three that do not read", 10)
        assert len(server.invoke(picture("red")).body) == 6_000_000
        until(lambda: in_flight(server) == 0, "nothing in flight", 10)


@both_engines
def test_callers_that_go_away_leave_nothing_behind(healthy: Callable[[str], Server], kind: str) -> None:
    server = healthy(kind)
    workers = server.children()
    for part in (10, len(GOOD) // 2, len(GOOD) - 1, len(GOOD)):
        for _ in range(20):
            with connect(server.port) as connection:
                connection.sendall(GOOD[:part])
    until(lambda: in_flight(server) == 0, "nothing in flight", 15)
    assert exchange(server.port, GOOD).status == 200
    assert server.children() == workers


@both_engines
def test_a_caller_that_half_closes_its_connection_gets_its_answer(tmp_path: Path, kind: str) -> None:
    """As `nc -N` and some clients do it: nothing more is sent, and the answer is waited for."""
    model, switch = switched_model(tmp_path / "model", "time.sleep(0.5)")
    switch.touch()
    with serving(model, tmp_path / "run", kind=kind) as server:
        ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
        old = GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")
        kept = GOOD.replace(b"Connection: close\r\n", b"")
        for raw, statuses in (
            (GOOD, ["200"]), (old, ["200"]), (ping, ["200"]), (b"rubbish\r\n", ["400"]), (kept + ping, ["200"] * 2),
            (GOOD[:-1], []), (ping[:-1], []), (b"", []),
        ):  # fmt: skip
            with connect(server.port, 10) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(partial(connection.recv, 65536), b""))  # until the connection ends
            assert re.findall(r"HTTP/1.1 ([2-9]\d\d)", received.decode()) == statuses, raw[:20]
        until(lambda: in_flight(server) == 0, "nothing in flight", 5)


@both_engines_in_full
def test_a_hundred_idle_connections_are_no_matter(healthy: Callable[[str], Server], kind: str) -> None:
    server = healthy(kind)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(server.port))
        with observing(server.port) as observer:
            until(lambda: len(observer.calls) > 20, "answers", 20)
        assert observer.statuses() == {200}
        assert {status for _, status in observer.pings} == {200}
        assert observer.slowest() < 5


@both_engines_in_full
def test_a_head_without_end_is_refused(healthy: Callable[[str], Server], kind: str) -> None:
    server = healthy(kind)
    with connect(server.port) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for index in range(100_000):
                connection.sendall(b"X-%d: y\r\n" % index)
        assert read(connection).status in (0, 400)
    assert exchange(server.port, GOOD).status == 200
