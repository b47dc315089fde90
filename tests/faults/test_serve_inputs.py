"""Hostile requests over HTTP: an answer to each, 2xx or 4xx, and the workers are the same as before."""

import concurrent.futures
import contextlib
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import FULL, both_engines_in_full, need
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, serving, until
from tests.faults import corpus
from tests.faults.client import Reply, connect, exchange

COUNT = 5800 if FULL else 800  # 321 fixed kinds, twice, and mutations
# A worker that meets its largest picture so far keeps some of that for the next one, which is no leak.
MEMORY_GROWTH = 1.10
INSIDE = re.compile(rb"Traceback|\.py\b|\bjava\.|netty|Exception|0x[0-9a-f]{6}")


def memory(server: Server) -> int:
    """Bytes of the server's processes; what they share is counted once."""
    processes = [server.root, *server.descendants()]
    return sum(int(process.memory_full_info().pss) for process in processes)


def send(server: Server, cases: Iterable[corpus.Case]) -> list[tuple[str, Reply]]:
    def one(case: corpus.Case) -> tuple[str, Reply]:
        try:
            return case.kind, exchange(server.port, case.raw)
        except TimeoutError:
            return case.kind, Reply(-1, b"no answer")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, cases))


@pytest.mark.timeout(3600)
@both_engines_in_full
def test_hostile_requests_cost_no_worker_and_no_memory(kind: str, tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", kind=kind) as server:
        unpickled = server.tmp / corpus.UNPICKLED.name if kind == "docker" else corpus.UNPICKLED
        unpickled.unlink(missing_ok=True)
        workers = {process.pid for process in server.python()}
        answers = [*send(server, corpus.fixed()), *send(server, corpus.fixed())]  # twice: more than one worker
        dice = random.Random(corpus.SEED)
        half = (COUNT - len(answers)) // 2
        answers += send(server, (corpus.mutated(dice) for _ in range(half)))
        settled = memory(server)
        answers += send(server, (corpus.mutated(dice) for _ in range(half)))
        grown = memory(server) / settled
        bad = [
            (kind, answer.status, answer.body[:200]) for kind, answer in answers if answer.status // 100 not in (2, 4)
        ]
        assert bad == []
        assert [(kind, answer.body[:300]) for kind, answer in answers if INSIDE.search(answer.body)] == []
        assert {process.pid for process in server.python()} == workers
        assert server.invoke(picture("red")).status == 200
        assert not unpickled.exists()
        assert "Traceback" not in server.log()
        assert server.err.read_text() == ""
        counted = Counter(answer.status for _, answer in answers)
        print(f"{len(answers)} requests: {dict(sorted(counted.items()))}; memory {settled / 1e6:.0f} MB, x {grown:.3f}")
        assert grown < MEMORY_GROWTH
    assert len(answers) >= COUNT


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Expect: something-else", 417),
        (b"Expect: 100-continue, something-else", 417),
        (b"Transfer-Encoding: xchunked", 400),
        (b"Transfer-Encoding: gzip, chunked", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    ],
)
def test_what_is_in_a_body_is_never_taken_for_a_request(header: bytes, status: int, tmp_path: Path) -> None:
    """Whoever stands before the server may see the end of a request elsewhere than it does."""
    inner = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = corpus.request(inner, b"Content-Type: image/jpeg", header).replace(b"Connection: close\r\n", b"")
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server, connect(server.port, 20) as connection:
        connection.sendall(raw)
        answers = b""
        with contextlib.suppress(ConnectionResetError):  # closed with the body unread
            while more := connection.recv(65536):
                answers += more
        assert answers.startswith(b"HTTP/1.1 %d " % status)
        assert answers.count(b"HTTP/1.1 ") == 1


def test_the_same_seed_gives_the_same_requests() -> None:
    first, second = ([case.raw for case in corpus.corpus(600)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 550


def test_no_request_starts_a_program(tmp_path: Path) -> None:
    """Neither a shell nor anything else: traced, while all fixed kinds of requests come in."""
    need(shutil.which("strace"), "strace")
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        watched = [f"--attach={process.pid}" for process in (server.root, *server.descendants())]
        trace, said = tmp_path / "trace", tmp_path / "said"
        command = ["strace", "--follow-forks", "--trace=execve,execveat", f"--output={trace}", *watched]
        with said.open("wb") as err:
            strace = subprocess.Popen(command, stderr=err)
        try:
            until(lambda: said.read_text().count(" attached") >= len(watched), "strace attached", 20)
            cases = [case for case in corpus.fixed() if len(case.raw) < 100_000]
            assert {answer.status // 100 for _, answer in send(server, cases)} <= {2, 4}
            assert server.invoke(picture("red")).status == 200
        finally:
            strace.send_signal(signal.SIGINT)  # it detaches
            strace.wait(20)
        assert "exec" not in trace.read_text()
        assert server.invoke(picture("red")).status == 200
