"""The serving program, as a process of its own or in a container."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from container_serve.artifact import CODE
from tests.docker import engine

ROOT = Path(__file__).parents[2]
START_SECONDS = 60  # how long a test waits for a server
PATIENCE = 4  # on a machine that does other things too, all takes that much longer


def free_port() -> int:
    """multi-model-server takes no port above 32766, and the kernel's free ones are higher."""
    first = 20000 + os.getpid() * 1009 % 9000  # far from that of a process started beside this one
    for port in range(first, 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    continue
                return port
    raise AssertionError("no free port")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> float:
    """Wait until the condition holds, PATIENCE times the seconds that it may take; seconds that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > PATIENCE * seconds:
            raise AssertionError(f"{what}: not within {PATIENCE * seconds} s")
        time.sleep(0.02)
    return time.monotonic() - begun


class Server:
    """One running server; `out` and `err` are the files that hold what it printed, `tmp` its temporary folder."""

    def __init__(self, model: Path, folder: Path, env: Mapping[str, str], prefix: Sequence[str], port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.tmp = Path(tempfile.mkdtemp(prefix="serve-"))  # short, for the paths of sockets
        self.out, self.err = folder / "out.log", folder / "err.log"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = self.start(model, env, prefix, {"cwd": folder, "stdout": out, "stderr": err})

    def start(
        self, model: Path, env: Mapping[str, str], prefix: Sequence[str], files: Mapping[str, Any]
    ) -> "subprocess.Popen[bytes]":
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SAGEMAKER_", "BYOC_", "MMS_"))}
        command = ["-m", "container_serve", "--model-dir", str(model), "--port", str(self.port)]
        environment = {**clean, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.tmp), **env}
        return subprocess.Popen([*prefix, sys.executable, *command], env=environment, **files)

    @property
    def root(self) -> psutil.Process:
        """The serving program."""
        return psutil.Process(self.process.pid)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def invoke(self, body: bytes, content_type: str = "image/jpeg", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", "/invocations", body, {"Content-Type": content_type, **named})

    def ping(self) -> int | None:
        """The status, None while nobody listens."""
        try:
            return self.request("GET", "/ping", timeout=5).status
        except OSError:
            return None

    def wait_ready(self) -> "Server":
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.err.read_text()}{self.log()}")
            return self.ping() == 200

        until(ready, f"ready; its log: {self.out}")
        return self

    def log(self) -> str:
        return self.out.read_text(errors="replace")

    def descendants(self) -> list[psutil.Process]:
        try:
            return self.root.children(recursive=True)
        except psutil.NoSuchProcess:  # it ends just now
            return []

    def java(self) -> psutil.Process:
        return self._with_argument("byoc.FrontEnd")[0]

    def python(self) -> list[psutil.Process]:
        """The workers and the process that forks them."""
        return self._with_argument("container_serve.worker.main")

    def children(self) -> list[psutil.Process]:
        """The workers, without the process that forks them."""
        java, found = self.java().pid, []
        for process in self.python():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() != java:
                    found.append(process)
        return found

    def held(self) -> tuple[int, int, int]:
        """Threads of the front end that read workers' output, its open files, and the files in its run directory."""
        proc = Path(f"/proc/{self.java().pid}")
        readers = 0
        for path in proc.glob("task/*/comm"):
            with suppress(OSError):  # it ended meanwhile
                readers += "-std" in path.read_text()
        return readers, len(list(proc.glob("fd/*"))), len(list(self.tmp.rglob("*")))

    def _with_argument(self, text: str) -> list[psutil.Process]:
        found = []
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):  # also: is a zombie
                if any(text in argument for argument in process.cmdline()):
                    found.append(process)
        return found

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to the program alone: the rest has to follow by itself; see the test for it."""
        self.process.kill()
        self.process.wait()


class Contained(Server):
    """The same in a container, on this machine's network: the caller stands before the server, and no proxy between.

    `process` is Docker's client, which hands on signals, output and the exit code. The prefix are its options.
    """

    def start(
        self, model: Path, env: Mapping[str, str], prefix: Sequence[str], files: Mapping[str, Any]
    ) -> "subprocess.Popen[bytes]":
        # An artifact with a program of its own is for the image that has torch.
        image = engine.image("serve-torch" if (model / CODE).exists() else "serve")
        self.tmp.chmod(0o1777)
        self.name = f"byoc-test-{os.getpid()}-{time.monotonic_ns()}"
        settings = {"SAGEMAKER_BIND_TO_PORT": str(self.port), **env}
        options = [word for pair in settings.items() for word in ("--env", "=".join(pair))]
        folders = ("--volume", f"{model}:/opt/ml/model:ro", "--volume", f"{self.tmp}:/tmp")
        command = ["docker", "run", "--rm", "--name", self.name, "--network", "host", *folders, *options, *prefix]
        return subprocess.Popen([*command, image, "serve"], **files)

    @property
    def root(self) -> psutil.Process:
        """The container's first process, as this machine numbers it."""
        return psutil.Process(int(engine.docker("inspect", "--format", "{{.State.Pid}}", self.name).stdout))

    def kill(self) -> None:
        engine.docker("rm", "--force", "--volumes", self.name, check=False)
        self.process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@contextmanager
def serving(
    model: Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    ready: bool = True,
    port: int | None = None,
    prefix: Sequence[str] = (),
    kind: str = "process",
) -> Iterator[Server]:
    """A server over the artifact `model`; `folder` is for its logs, `kind` is process or docker."""
    make = Contained if kind == "docker" else Server
    with running(make(model, folder, env or {}, prefix, port or free_port()), ready) as server:
        yield server


@contextmanager
def running(server: Server, ready: bool = True) -> Iterator[Server]:
    """Ends it, whatever has become of it."""
    family: list[psutil.Process] = []
    try:
        if ready:
            server.wait_ready()
            family = server.descendants()
        yield server
    finally:
        if server.process.poll() is None:
            with suppress(psutil.Error, AssertionError):  # a container may be about to begin, or to end
                family += server.descendants()
            server.kill()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(server.tmp, ignore_errors=True)


def one_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, f"expected one line, got: {text!r}"
    assert "Traceback" not in text
    return lines[0]


def access_lines(server: Server) -> list[dict[str, str]]:
    """The log's lines of answers, as dictionaries."""
    found = []
    for line in server.log().splitlines():
        if match := re.search(r" access: id=(\S+) (\S+) (\S+) (.*)$", line):
            rest = dict(pair.split("=", 1) for pair in match[4].split())
            found.append({"id": match[1], "method": match[2], "path": match[3], **rest})
    return found
