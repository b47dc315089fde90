"""A server's beginning and end: what /ping says, what survives, what is left behind."""

import concurrent.futures
import operator
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from container_serve import artifact
from tests.conftest import both_engines_in_full, need
from tests.contract.models import picture, write_model
from tests.contract.serving import Answer, Server, access_lines, gone, one_line, serving, until

NOBODY = 65534
SLOW_CODE = """
import time

def predict_fn(batch, model):
    time.sleep({seconds})
    return model.probabilities(batch)
"""

HELD_CODE = """
import time
from pathlib import Path

def predict_fn(batch, model):
    Path({held!r} + ".busy").touch()
    while Path({held!r}).exists():
        time.sleep(0.02)
    return model.probabilities(batch)
"""


def slow_model(directory: Path, seconds: float) -> Path:
    """A model that takes its time: the tiny one with a predict_fn of its own."""
    return with_code(directory, SLOW_CODE.format(seconds=seconds))


def held_model(directory: Path, held: Path) -> Path:
    """A model that answers nothing as long as the file `held` is there, and makes `held.busy` when it is asked."""
    return with_code(directory, HELD_CODE.format(held=str(held)))


def with_code(directory: Path, code: str) -> Path:
    write_model(directory)
    (directory / artifact.CODE).mkdir()
    (directory / artifact.CODE / "inference.py").write_text(code)
    return directory


@pytest.fixture
def one_worker() -> dict[str, str]:
    return {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}


def test_ping_is_red_until_an_invocation_succeeds(tmp_path: Path) -> None:
    seen: list[tuple[int | None, int | None]] = []
    with serving(write_model(tmp_path / "model"), tmp_path / "run", ready=False) as server:

        def look() -> bool:
            try:
                ping = server.ping()
                invocation = server.invoke(picture("red")).status if ping is not None else None
            except OSError:
                return False
            seen.append((ping, invocation))
            return ping == 200

        until(look, "ready")
    assert [invocation for ping, invocation in seen if ping == 200] == [200]
    assert {ping for ping, _ in seen} <= {None, 200, 503}


@pytest.mark.timing
def test_killed_workers_are_replaced(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        workers = server.python()
        for process in workers:
            process.kill()
        red = until(lambda: server.ping() == 503, "/ping red", 5)
        again = until(lambda: server.ping() == 200, "/ping green again", 15)
        assert server.invoke(picture("red")).status == 200
        assert red < 1.5  # 0.5 s on a machine that does nothing else
        assert again < 10
        assert gone(workers)
        until(lambda: len(server.python()) == len(workers), "all workers", 10)
        until(lambda: "a worker died" in server.log(), "the line in the log", 5)


def test_the_graph_is_compiled_once_for_all_workers(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        (compiled,) = server.tmp.glob("byoc-serve-*/graphs/*.blob")
        size, made = compiled.stat().st_size, compiled.stat().st_mtime_ns
        assert size > 0
        until(lambda: loaded(server) == 2, "both workers", 20)
        assert compiled.stat().st_mtime_ns == made
        compiled.chmod(0o600)
        compiled.write_bytes(b"")  # what a full disk may leave
        workers = server.python()
        for process in workers:
            process.kill()
        until(lambda: server.ping() == 503, "/ping red", 5)
        until(lambda: server.ping() == 200, "/ping green again", 15)
        assert server.invoke(picture("red")).json()["predictions"][0]["label"] == "red"
        assert compiled.stat().st_size == size


@both_engines_in_full
def test_killed_children_leave_nothing_in_the_front_end(tmp_path: Path, kind: str) -> None:
    workers = 2
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers)}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env, kind=kind) as server:
        killed: list[psutil.Process] = []

        def replaced() -> bool:
            return len(set(server.children()) - set(killed)) == loaded(server) == workers

        until(replaced, "all workers", 15)
        assert server.invoke(picture("red")).status == 200
        before = server.held()
        for _ in range(6):
            until(replaced, "all workers", 15)
            killed = server.children()
            for process in killed:
                process.kill()
        until(replaced, "all workers", 15)
        until(lambda: all(map(operator.le, server.held(), before)), "what killed workers left closed", 5)
        assert server.invoke(picture("red")).status == 200


def test_a_worker_that_cannot_load_the_model_any_more_says_why_and_the_next_one_may(
    tmp_path: Path, one_worker: dict[str, str]
) -> None:
    model = write_model(tmp_path / "model")
    with serving(model, tmp_path / "run", one_worker) as server:
        (model / "model.xml").rename(tmp_path / "model.xml")
        server.children()[0].kill()
        until(lambda: "model model cannot be loaded: model.xml: missing" in server.log(), "the reason in the log", 10)
        assert server.ping() == 503
        (tmp_path / "model.xml").rename(model / "model.xml")
        until(lambda: server.ping() == 200, "another worker", 10)
        assert server.invoke(picture("red")).status == 200


def test_a_request_whose_worker_is_killed_gets_500_and_the_next_one_an_answer(
    tmp_path: Path, one_worker: dict[str, str]
) -> None:
    held = tmp_path / "held"
    with (
        serving(held_model(tmp_path / "model", held), tmp_path / "run", one_worker) as server,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        held.touch()
        first = pool.submit(server.invoke, picture("red"))
        until((tmp_path / "held.busy").exists, "first at a worker", 5)
        second = pool.submit(server.invoke, picture("red"))
        until(lambda: in_flight(server) == 2, "second in flight", 5)
        for process in server.children():
            process.kill()
        assert first.result().status == 500
        held.unlink()
        assert set(first.result().json()) == {"code", "type", "message"}
        assert second.result().status == 200


def test_what_waits_is_computed_together_and_what_dies_together_is_tried_again_alone(
    tmp_path: Path, one_worker: dict[str, str]
) -> None:
    colors = {"red": "red", "lime": "green", "blue": "blue"}
    model = write_model(tmp_path / "model", seconds=0.8)
    with (
        serving(model, tmp_path / "run", one_worker) as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):

        def asked() -> list[concurrent.futures.Future[Answer]]:
            """One that keeps the worker busy, and five that wait meanwhile."""
            first = pool.submit(server.invoke, picture("red"))
            until(lambda: in_flight(server) == 1, "first in flight", 5)
            rest = [pool.submit(server.invoke, body) for body in (*map(picture, colors), b"junk")]
            until(lambda: first.done() or in_flight(server) == 5, "all in flight", 5)
            assert first.result().status == 200
            return rest

        *good, bad = (each.result() for each in asked())
        assert [answer.json()["predictions"][0]["label"] for answer in good] == list(colors.values())
        together = min(map(computed, good))
        assert max(map(computed, good)) < together + 5, "one call of the model, and what each does with its answer"
        assert (bad.status, bad.json()["type"]) == (400, "InvalidImage")

        again = asked()
        (worker,) = server.children()
        worker.kill()
        *good, bad = (each.result() for each in again)
        assert [answer.json()["predictions"][0]["label"] for answer in good] == list(colors.values())
        assert max(map(computed, good)) < together
        assert bad.status == 400


def computed(answer: Answer) -> float:
    """The milliseconds of the model in Server-Timing."""
    return float(answer.headers["server-timing"].split("model;dur=")[1].split(",")[0])


def in_flight(server: Server) -> int:
    return int(server.request("GET", "/ping").json()["in_flight"])


def loaded(server: Server) -> int:
    return int(server.request("GET", "/ping").json()["workers"])


def test_the_program_ends_when_its_java_server_is_killed(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        family = server.descendants()
        server.java().kill()
        assert server.process.wait(40) == 1
        assert "killed by SIGKILL" in one_line(server.err.read_text())
        assert "server: stopped" not in server.log()  # the cause stands last
        assert gone(family)
        assert list(server.tmp.iterdir()) == []


def test_a_signal_in_the_moment_in_which_java_dies_ends_it_without_a_traceback(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        family = server.descendants()
        server.process.send_signal(signal.SIGSTOP)  # so that it finds both at once
        java = server.java()
        java.kill()
        until(lambda: gone([java]), "it is dead", 5)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        code, said = server.process.wait(20), server.err.read_text()
        assert "Traceback" not in said + server.log()
        assert "the Java server ended unexpectedly (killed by SIGKILL)" in said + server.log()
        assert (code, said) == (0, "") or (code == 1 and one_line(said))  # as it was in a look at it, or not
        assert gone(family)


def test_nothing_stays_when_the_program_itself_is_killed(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        family = server.descendants()
        assert len(family) >= 3
        server.process.kill()
        server.process.wait()
        until(lambda: gone(family), "all processes gone", 5)


def test_a_supervisor_that_hangs_turns_ping_red(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        server.process.send_signal(signal.SIGSTOP)
        until(lambda: server.ping() == 503, "/ping red", 10)
        server.process.send_signal(signal.SIGCONT)
        until(lambda: server.ping() == 200, "/ping green again", 10)


OTHER_SIGNALS = [pytest.param(number, marks=pytest.mark.full) for number in (signal.SIGINT, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *OTHER_SIGNALS])
def test_a_signal_drains_the_server_under_load(tmp_path: Path, number: int, one_worker: dict[str, str]) -> None:
    with serving(slow_model(tmp_path / "model", 0.5), tmp_path / "run", one_worker) as server:
        family = server.descendants()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            accepted = [pool.submit(server.invoke, picture("red")) for _ in range(6)]
            until(lambda: in_flight(server) == 6, "all in flight", 5)
            server.process.send_signal(number)
            red = until(lambda: server.ping() == 503, "/ping red", 5)
            late = server.invoke(picture("red"))
            assert red < 2
            assert (late.status, late.json()["type"]) == (503, "NotReady")
            assert [request.result().status for request in accepted] == [200] * 6
        assert server.process.wait(30) == 0
        assert gone(family)
        assert list(server.tmp.iterdir()) == []
        assert server.err.read_text() == ""


def test_a_drain_ends_after_25_seconds(tmp_path: Path, one_worker: dict[str, str]) -> None:
    with serving(slow_model(tmp_path / "model", 40), tmp_path / "run", one_worker) as server:
        family = server.descendants()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(server.invoke, picture("red"))
            until(lambda: in_flight(server) == 1, "in flight", 5)
            begun = time.monotonic()
            assert server.stop() == 0
            assert 24 < time.monotonic() - begun < 40
            with pytest.raises(OSError):  # noqa: PT011  # reset or closed without an answer
                stuck.result()
        assert gone(family)


def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", ready=False) as server:
        until(lambda: server.descendants(), "Java started")
        family = server.descendants()
        assert server.stop(seconds=40) == 0
        assert gone(family)
        assert list(server.tmp.iterdir()) == []


def test_a_request_that_takes_too_long_gets_an_answer(tmp_path: Path, one_worker: dict[str, str]) -> None:
    env = {**one_worker, "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    with serving(slow_model(tmp_path / "model", 30), tmp_path / "run", env) as server:
        stuck = server.children()[0]
        begun = time.monotonic()
        answer = server.invoke(picture("red"))
        assert (answer.status, answer.json()["type"]) == (504, "Timeout")
        assert 1.9 < time.monotonic() - begun < 10
        # The worker that is stuck is ended, so that the next request has one.
        until(lambda: gone([stuck]), "stuck worker ended", 5)
        until(lambda: server.ping() == 200, "/ping green again", 10)


def test_a_full_queue_is_said(tmp_path: Path, one_worker: dict[str, str]) -> None:
    held = tmp_path / "held"
    env = {**one_worker, "BYOC_QUEUE_SIZE": "2"}
    with (
        serving(held_model(tmp_path / "model", held), tmp_path / "run", env) as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        held.touch()
        asked = [pool.submit(server.invoke, picture("red")) for _ in range(8)]
        until(lambda: sum(each.done() for each in asked) == 5, "five refused", 5)
        held.unlink()
        answers = [each.result() for each in asked]
        assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 5
        refused = next(answer for answer in answers if answer.status == 503)
        assert refused.json()["type"] == "QueueFull"
        until(lambda: in_flight(server) == 0, "nothing in flight", 5)


def test_a_caller_that_goes_away_is_forgotten(tmp_path: Path, one_worker: dict[str, str]) -> None:
    with serving(slow_model(tmp_path / "model", 1), tmp_path / "run", one_worker) as server:
        with pytest.raises(OSError):  # noqa: PT011
            server.request("POST", "/invocations", picture("red"), {"Content-Type": "image/jpeg"}, timeout=0.3)
        until(lambda: in_flight(server) == 0, "nothing in flight", 5)
        assert server.invoke(picture("red")).status == 200
        until(lambda: len(access_lines(server)) == 2, "the line of each", 5)


def test_answers_under_load_are_each_caller_s_own(tmp_path: Path) -> None:
    colors = {"red": "red", "lime": "green", "blue": "blue"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        until(lambda: loaded(server) == 2, "both workers", 20)
        workers = server.children()
        wrong: list[str] = []
        stop = threading.Event()

        def ask(color: str) -> int:
            count = 0
            while not stop.is_set():
                answer = server.invoke(picture(color))
                if answer.status != 200 or answer.json()["predictions"][0]["label"] != colors[color]:
                    wrong.append(f"{color}: {answer}")
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor(18) as pool:
            counts = [pool.submit(ask, color) for color in 6 * list(colors)]
            time.sleep(4)
            stop.set()
        assert wrong == []
        assert all(count.result() > 3 for count in counts)
        assert server.children() == workers  # none has died, whose requests were then tried again


def test_another_user_than_root_with_a_read_only_model(tmp_path: Path) -> None:
    # A user namespace: the files that root owns stay readable, root's rights over them are gone.
    become = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    need(subprocess.run([*become, "true"], capture_output=True).returncode == 0, "unshare --user")
    model = write_model(tmp_path / "model")
    for path in [*model.iterdir(), model]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with serving(model, tmp_path / "run", prefix=become) as server:
        mapped = Path(f"/proc/{server.process.pid}/uid_map").read_text().split()
        assert mapped == [str(NOBODY), str(os.geteuid()), "1"]
        assert server.invoke(picture("red")).status == 200
        assert server.stop() == 0
        assert list(server.tmp.iterdir()) == []


def test_a_read_only_file_system_with_a_tmp_that_forbids_programs(tmp_path: Path) -> None:
    """As `docker run --read-only --tmpfs /tmp` gives it."""
    script = 'mount -o remount,ro,bind / && mount -t tmpfs -o noexec,nosuid,nodev tmpfs "$TMPDIR" && exec "$@"'
    become = ["unshare", "--mount", "sh", "-c", script, "sh"]
    tried = subprocess.run([*become, "true"], capture_output=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    need(tried.returncode == 0, "the right to mount")
    with serving(write_model(tmp_path / "model"), tmp_path / "run", prefix=become) as server:
        assert server.invoke(picture("red")).status == 200
        assert server.stop() == 0
        assert server.err.read_text() == ""
