"""A job of several processes: on each host a launcher, which starts one for each GPU, or one where there is none.

The launcher does not train. It hears of the end of its processes, tells the launcher of the first host over a `Link`,
and ends as that one decides, so that all hosts end together and with the same line, whatever happened to one of them.
That is also how a process is found out that is gone: the others, waiting for it within gloo or nccl, cannot tell.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from container_train import job
from container_train.link import Link, accept, listen
from container_train.tree import Tree
from container_train.verdict import STOPPED, Jury, Verdict

SCRATCH = "BYOC_SCRATCH"  # a folder that the processes of a host share, and that ends with them
PORT = "BYOC_PORT"  # of the first host, for launchers; the next one is for the processes
DEFAULT_PORT = 29400
POLL_SECONDS = 0.1
START_SECONDS = 300.0  # that a host may take longer than another
SAY_SECONDS = 10.0  # after which it is said that one is waited for
FAREWELL_SECONDS = 5.0


@dataclass(frozen=True)
class Layout:
    """Where the processes of a job are: on `hosts`, in order, as many on each; `here` is this one's name."""

    hosts: tuple[str, ...]
    here: str
    interface: str
    local: int

    @classmethod
    def of(cls, tree: Tree, arguments: Sequence[str]) -> "Layout":
        here, hosts = job.hosts(tree)
        hosts = hosts if here in hosts else [here]
        return cls(tuple(hosts), here, job.interface(tree), gpus() if device(arguments) != "cpu" else 0)

    @property
    def processes(self) -> int:
        """On each host."""
        return max(1, self.local)

    @property
    def size(self) -> int:
        return len(self.hosts) * self.processes

    @property
    def index(self) -> int:
        return self.hosts.index(self.here)

    def environment(self, local_rank: int, scratch: Path) -> dict[str, str]:
        """What torchrun would say, too. Each process sees one GPU."""
        words = {
            "RANK": str(self.index * self.processes + local_rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "MASTER_ADDR": self.hosts[0] if len(self.hosts) > 1 else "127.0.0.1",
            "MASTER_PORT": str(port() + 1),
            SCRATCH: str(scratch),
        }
        if self.interface and len(self.hosts) > 1:
            words |= {
                name: os.environ.get(name, self.interface) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
            }
        elif len(self.hosts) == 1:
            words["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        if self.local:
            words["CUDA_VISIBLE_DEVICES"] = visible(self.local)[local_rank]
        return {**os.environ, **words}


def port() -> int:
    return int(os.environ.get(PORT, DEFAULT_PORT))


def device(arguments: Sequence[str]) -> str:
    """The hyperparameter, without the seconds that reading all of them takes; a wrong one is told of elsewhere."""
    for word, value in itertools.pairwise(arguments):
        if word == "--device":
            return value.strip().lower()
    return "auto"


def gpus() -> int:
    """NVIDIA GPUs that this container sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([word for word in named.split(",") if word.strip()])
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))


def visible(count: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [word.strip() for word in named.split(",")] if named else [str(number) for number in range(count)]


@dataclass
class Local:
    """The processes of this host."""

    layout: Layout
    scratch: Path
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, arguments: Sequence[str]) -> None:
        for local_rank in range(self.layout.processes):
            environment = self.layout.environment(local_rank, self.scratch)
            command = [sys.executable, str(Path(__file__).with_name("__main__.py")), *arguments]
            self.running[int(environment["RANK"])] = subprocess.Popen(command, env=environment)

    def ended(self) -> list[tuple[int, int, str]]:
        """Rank, exit code and line of those that have ended since the last call."""
        found = []
        for rank, process in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[rank]
                if code == -signal.SIGTERM:
                    found.append((rank, STOPPED, "stopped before the training began; nothing is lost"))
                else:
                    found.append((rank, code, self._line(rank, code)))
        return found

    def _line(self, rank: int, code: int) -> str:
        with contextlib.suppress(OSError):
            words = failure_file(self.scratch, rank).read_text().splitlines()[0]
            return words if code == STOPPED else f"{words} ({self._who(rank)})"
        if code >= 0:
            return f"{self._who(rank)} ended with code {code} without a word: see its log" if code else ""
        name = signal.Signals(-code).name
        hint = (
            ": mostly for want of memory: use a larger instance, or a smaller batch-size" if name == "SIGKILL" else ""
        )
        return f"{self._who(rank)} was killed by {name}{hint}"

    def _who(self, rank: int) -> str:
        return f"process {rank} of {self.layout.size}, host {self.layout.here}"

    def tell_to_stop(self) -> None:
        for process in self.running.values():
            process.terminate()

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()


def failure_file(scratch: Path, rank: int) -> Path:
    return scratch / f"failure.{rank}"


class Waiting:
    """For a host that is not there yet: it may have failed before it could tell."""

    def __init__(self) -> None:
        self.begun, self.said = time.monotonic(), False

    def look(self, host: str) -> Verdict | None:
        seconds = time.monotonic() - self.begun
        if seconds > START_SECONDS:
            return Verdict(1, f"host {host} did not come within {START_SECONDS:.0f} s: see its log")
        if seconds > SAY_SECONDS and not self.said:
            self.said = True
            print(f"waiting for host {host}, for at most {START_SECONDS:.0f} s", file=sys.stderr, flush=True)
        return None


class First:
    """The first host's part: it hears all, and decides."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.jury = layout, Jury(layout.size)
        self.listener = listen(port()) if len(layout.hosts) > 1 else None
        self.unknown: list[Link] = []
        self.links: dict[str, Link] = {}
        self.waiting = Waiting()
        self.stop_wanted = False

    def hear(self, rank: int, code: int, line: str) -> None:
        self.jury.hear(rank, code, line)

    def stop(self) -> None:
        if self.jury.stop():
            self.stop_wanted = True
            for link in self.links.values():
                link.send({"stop": True})

    def turn(self) -> Verdict | None:
        if self.listener is not None:
            self.unknown += accept(self.listener)
        for link in list(self.unknown):
            self._listen("", link)
        for host, link in self.links.items():
            self._listen(host, link)
            link.beat()
        verdict = self.jury.decide()
        return verdict or self._missing()

    def _listen(self, host: str, link: Link) -> None:
        for message in link.messages():
            if message.get("host") in self.layout.hosts and not host:
                host = str(message["host"])
                self.unknown.remove(link)
                self.links = {**self.links, host: link}
                if self.stop_wanted:
                    link.send({"stop": True})
            if host and "ended" in message:
                self.hear(int(message["ended"]), int(message["code"]), str(message["line"]))
            if host and "stop" in message:
                self.stop()
        if not host and link.lost:
            self.unknown.remove(link)

    def _missing(self) -> Verdict | None:
        for host, link in self.links.items():
            if link.lost:
                return Verdict(1, f"host {host} is gone: its container ended, or it cannot be reached any more")
        late = [host for host in self.layout.hosts if host != self.layout.here and host not in self.links]
        return self.waiting.look(late[0]) if late else None

    def end(self, verdict: Verdict) -> None:
        for link in self.links.values():
            link.send({"end": verdict.code, "line": verdict.line})
        # Until they have read it: what is closed too early may be lost on its way.
        deadline = time.monotonic() + FAREWELL_SECONDS
        while not all(link.lost for link in self.links.values()) and time.monotonic() < deadline:
            for link in self.links.values():
                link.messages()
            time.sleep(POLL_SECONDS)


class Other:
    """Any other host's part: it tells the first, and waits for its word."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.link: Link | None = None
        self.kept: list[dict[str, Any]] = [{"host": layout.here}]
        self.waiting = Waiting()
        self.stop_wanted = False

    def hear(self, rank: int, code: int, line: str) -> None:
        self._send({"ended": rank, "code": code, "line": line})

    def stop(self) -> None:
        self._send({"stop": True})

    def _send(self, message: dict[str, Any]) -> None:
        if self.link is None:
            self.kept.append(message)
        else:
            self.link.send(message)

    def turn(self) -> Verdict | None:
        first = self.layout.hosts[0]
        if self.link is None:
            self.link = Link.to(first, port())
            if self.link is None:
                return self.waiting.look(first)
            for message in self.kept:
                self.link.send(message)
        self.link.beat()
        for message in self.link.messages():
            if "stop" in message:
                self.stop_wanted = True
            if "end" in message:
                return Verdict(int(message["end"]), str(message["line"]))
        if self.link.lost:
            return Verdict(1, f"host {first} is gone: its container ended, or it cannot be reached any more")
        return None

    def end(self, _verdict: Verdict) -> None:
        if self.link is not None:
            self.link.close()


def run(layout: Layout, arguments: Sequence[str], tree: Tree) -> int:
    """Start this host's processes and end as the job does; the exit code. The reason is in the failure file, too."""
    asked = False

    def ask(_signal: int, _frame: object) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    try:
        part = First(layout) if layout.index == 0 else Other(layout)
    except OSError as error:
        return _said(Verdict(1, f"port {port()} cannot be used ({error.strerror}): {PORT} names another"), tree)
    with tempfile.TemporaryDirectory(prefix="byoc-ranks-") as folder:
        local = Local(layout, Path(folder))
        local.start(arguments)
        told = forwarded = False
        while True:
            if asked and not told:
                told = True
                part.stop()
            for rank, code, line in local.ended():
                part.hear(rank, code, line)
            verdict = part.turn()
            if (asked or part.stop_wanted) and not forwarded:
                forwarded = True
                local.tell_to_stop()
            if verdict is not None:
                break
            time.sleep(POLL_SECONDS)
        part.end(verdict)
        local.kill()
    return _said(verdict, tree)


def _said(verdict: Verdict, tree: Tree) -> int:
    if verdict.line and verdict.code:
        print(verdict.line if verdict.code == STOPPED else f"error: {verdict.line}", file=sys.stderr)
        tree.write_failure(verdict.line)
    return 128 - verdict.code if verdict.code < 0 else verdict.code
