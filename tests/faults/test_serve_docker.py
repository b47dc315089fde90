"""The faults that take a container: its memory limit, its disk, its processes killed, its end."""

import concurrent.futures
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.models import picture, write_model
from tests.contract.serving import free_port, until
from tests.docker import engine
from tests.faults.client import Observer, exchange, observing
from tests.faults.corpus import typed

pytestmark = pytest.mark.docker
LIE_SECONDS = 2.5
GOOD = typed(picture("red"), "image/jpeg")
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Takes what memory there is left in the container; the kernel then ends the process that is named to it.
HOG = "import time\nheld = []\nwhile True: held.append(bytearray(10**7)); time.sleep(0.01)"


class Container:
    """A running container and its server."""

    def __init__(self, identifier: str, port: int) -> None:
        self.identifier = identifier
        self.port = port

    def ping(self) -> int:
        try:
            return exchange(self.port, PING, 5).status
        except OSError:
            return 0

    def pids(self, text: str) -> list[int]:
        """Processes whose command has the text, as this machine numbers them."""
        listed = engine.docker("top", self.identifier, "-eo", "pid,args").stdout.splitlines()[1:]
        return [int(line.split(None, 1)[0]) for line in listed if text in line.split(None, 1)[1]]

    def kill(self, text: str) -> None:
        subprocess.run(["kill", "-KILL", *map(str, self.pids(text))], check=False, capture_output=True)

    def prefer_to_kill(self, text: str) -> None:
        for pid in self.pids(text):
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")

    def hog(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["docker", "exec", self.identifier, "python", "-c", HOG], stderr=subprocess.DEVNULL)

    def back(self, observer: Observer) -> None:
        """Wait until it serves again."""
        until(lambda: self.ping() == 200, "/ping green", 30)
        before = len(observer.calls)
        until(lambda: 200 in {status for _, _, status in observer.calls[before:]}, "a good answer", 20)

    def ended(self, seconds: float = 30) -> tuple[int, list[str]]:
        """Exit code and log of a container that ends by itself."""
        return engine.wait(self.identifier, seconds), engine.logs(self.identifier).splitlines()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Container]:
    port = free_port()
    mount = ("--volume", f"{write_model(folder / 'model')}:/opt/ml/model:ro")
    all_options = ("--publish", f"127.0.0.1:{port}:8080", *mount, *options)
    with engine.container(engine.image("serve"), "serve", options=all_options) as identifier:
        container = Container(identifier, port)
        until(lambda: container.ping() == 200, "ready", 60)
        yield container


@pytest.mark.parametrize("fault", ["killed", "out of memory"])
def test_workers_that_die_in_a_container_are_replaced(tmp_path: Path, fault: str) -> None:
    limit = ("--memory", "700m", "--memory-swap", "700m") if fault == "out of memory" else ()
    with serving(tmp_path, *limit) as container:
        before = set(container.pids("container_serve.worker.main"))
        with observing(container.port) as observer:
            if fault == "killed":
                container.kill("container_serve.worker.main")
            else:
                container.prefer_to_kill("container_serve.worker.main")
                hog = container.hog()
                until(lambda: not before <= set(container.pids("container_serve.worker.main")), "a worker killed", 60)
                container.kill("held.append")
                hog.wait(20)
            container.back(observer)
        assert observer.longest_lie() < LIE_SECONDS
        assert observer.statuses() <= {200, 500, 503}
        assert observer.slowest() < 55


@pytest.mark.parametrize("fault", ["killed", pytest.param("out of memory", marks=pytest.mark.full)])
def test_a_java_server_that_dies_ends_the_container(tmp_path: Path, fault: str) -> None:
    limit = ("--memory", "700m", "--memory-swap", "700m") if fault == "out of memory" else ()
    with serving(tmp_path, *limit) as container:
        if fault == "killed":
            container.kill("byoc.FrontEnd")
        else:
            container.prefer_to_kill("byoc.FrontEnd")
            container.hog()
        code, lines = container.ended()
        assert code == 1
        assert "killed by SIGKILL" in lines[-1]


def test_a_container_that_is_stopped_under_load_answers_what_it_has(tmp_path: Path) -> None:
    with serving(tmp_path) as container, concurrent.futures.ThreadPoolExecutor(9) as pool:
        stopped: list[float] = []

        def ask(_: int) -> list[tuple[float, int]]:
            found: list[tuple[float, int]] = []
            while not found or found[-1][1] == 200:
                sent = time.monotonic()
                try:
                    found.append((sent, exchange(container.port, GOOD).status))
                except OSError:
                    found.append((sent, 0))
            return found

        calls = [pool.submit(ask, index) for index in range(8)]
        time.sleep(1)
        stopped.append(time.monotonic())
        engine.docker("stop", "--time", "30", container.identifier)
        every = [call for each in calls for call in each.result()]
        assert len(every) > 20
        assert {status for sent, status in every if sent < stopped[0] - 0.5} == {200}
        assert {status for _, status in every} <= {200, 503, 0}  # 0: it is gone
        assert container.ended(1)[0] == 0


def test_a_disk_that_fills_up_in_a_container(tmp_path: Path) -> None:
    with serving(tmp_path, "--read-only", "--tmpfs", "/tmp:size=2m") as container:
        engine.docker("exec", container.identifier, "sh", "-c", "head -c 10M /dev/zero >/tmp/full", check=False)
        with observing(container.port) as observer:
            container.kill("container_serve.worker.main")
            until(lambda: container.ping() == 503, "/ping red", 10)
            container.back(observer)
        assert observer.longest_lie() < LIE_SECONDS


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--read-only",), "TMPDIR: no folder for temporary files"),
        (("--read-only", "--tmpfs", "/tmp:size=4k"), "No space left on device"),
        (("--user", "1000"), "Permission denied"),
        (("--env", "BYOC_USER=no-such-user"), "BYOC_USER: got 'no-such-user'"),
    ],
)
def test_a_container_that_cannot_serve_says_why_in_one_line(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    model = write_model(tmp_path / "model")
    model.chmod(0o700)
    volume = ("--volume", f"{model}:/opt/ml/model:ro")
    done = engine.run(engine.image("serve"), "serve", options=(*volume, *options), check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
