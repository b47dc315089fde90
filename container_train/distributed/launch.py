"""A job of several processes: on each host a launcher, which starts one for each GPU, or one where there is none.

The launcher does not train. It hears of the end of its processes, tells the launcher of the first host over a `Link`,
and ends as that one decides, so that all hosts end together and with the same line, whatever happened to one of them.
That is also how a process is found out that is gone, or that hangs: the others, waiting for it within gloo or nccl,
cannot tell.
"""

import contextlib
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from container_train.distributed.layout import PORT, Layout, port, usable
from container_train.distributed.link import Link, accept, listen
from container_train.distributed.ranks import Ranks
from container_train.distributed.verdict import PEER_LOST, STOPPED, Jury, Verdict
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

POLL_SECONDS = 0.1
START_SECONDS = 300.0  # that a host may take longer than another
SAY_SECONDS = 10.0  # after which it is said that one is waited for
FAREWELL_SECONDS = 5.0
ALONE_SECONDS = 30.0  # that a host whose process has failed still looks for the first, to tell it
STILL = "BYOC_STILL_SECONDS"  # for which a process may get no further
DEFAULT_STILL = 1800.0  # weights that are fetched over a slow network take their time, too
LOOK_SECONDS = 1.0


def still_seconds() -> float:
    """Raises TrainError."""
    words = os.environ.get(STILL, "")
    with contextlib.suppress(ValueError):
        seconds = float(words or DEFAULT_STILL)
        if 0 < seconds < math.inf:
            return seconds
    raise TrainError(f"{STILL} has value {words!r}: expected seconds above 0")


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

    def __init__(self, layout: Layout, limit: float = DEFAULT_STILL) -> None:
        self.layout, self.jury, self.limit = layout, Jury(layout.size), limit
        self.listener = listen(port()) if len(layout.hosts) > 1 else None
        self.unknown: list[Link] = []
        self.links: dict[str, Link] = {}
        self.quiets: dict[str, float] = {}
        self.waiting = Waiting()
        self.stop_wanted = False

    def hear(self, rank: int, code: int, line: str) -> None:
        self.jury.hear(rank, code, line)

    def quiet(self, seconds: float, host: str = "") -> None:
        """None of that host's processes has got any further for so long."""
        self.quiets[host or self.layout.here] = seconds

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
            # Each host comes once: whoever says that name later is a stranger.
            if not host and message.get("host") in self.layout.hosts and message["host"] not in self.links:
                host = str(message["host"])
                self.unknown.remove(link)
                self.links = {**self.links, host: link}
                if self.stop_wanted:
                    link.send({"stop": True})
            if host:
                with contextlib.suppress(KeyError, TypeError, ValueError):  # words of no launcher
                    self._take(host, message)
        if not host and link.lost:
            self.unknown.remove(link)

    def _take(self, host: str, message: dict[str, Any]) -> None:
        if "ended" in message:
            self.hear(int(message["ended"]), int(message["code"]), str(message["line"]))
        if "quiet" in message:
            self.quiet(float(message["quiet"]), host)
        if "stop" in message:
            self.stop()

    def _missing(self) -> Verdict | None:
        for host, link in self.links.items():
            if link.lost:
                return Verdict(1, f"host {host} is gone: its container ended, or it cannot be reached any more")
        late = [host for host in self.layout.hosts if host != self.layout.here and host not in self.links]
        if late and self.stop_wanted:
            return Verdict(STOPPED, f"stopped while host {late[0]} was waited for; nothing is lost")
        if late:
            return self.waiting.look(late[0])
        # Infinite: of a host whose processes have ended.
        if len(self.quiets) == len(self.layout.hosts) and self.limit < min(self.quiets.values()) < math.inf:
            words = f"all {self.layout.size} processes have waited for each other for {self.limit:.0f} s"
            return Verdict(1, f"{words}: one of them hangs, or hosts cannot reach each other ({STILL} allows more)")
        return None

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
        self.failed: Verdict | None = None
        self.failed_at = math.inf

    def hear(self, rank: int, code: int, line: str) -> None:
        if code not in (0, PEER_LOST, STOPPED) and self.failed is None:
            self.failed, self.failed_at = Verdict(code, line), time.monotonic()
        self._send({"ended": rank, "code": code, "line": line})

    def quiet(self, seconds: float) -> None:
        if self.link is not None:
            self.link.send({"quiet": seconds})

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
            if self.link is None and {"stop": True} in self.kept:
                return Verdict(STOPPED, f"stopped while host {first} was waited for; nothing is lost")
            if self.link is None and time.monotonic() - self.failed_at > ALONE_SECONDS:
                return self.failed
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


def run(layout: Layout, arguments: Sequence[str], tree: SageMakerPaths) -> int:
    """Start this host's processes and end as the job does; the exit code. The reason is in the failure file, too."""
    asked = False

    def ask(_signal: int, _frame: object) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    try:
        port()
        if len(layout.hosts) > 1:
            layout = replace(layout, interface=usable(layout.interface))
        limit = still_seconds()
        part = First(layout, limit) if layout.index == 0 else Other(layout)
    except TrainError as error:
        return _said(Verdict(1, str(error)), tree)
    except OSError as error:
        return _said(Verdict(1, f"port {port()} cannot be used ({error.strerror}): {PORT} names another"), tree)
    with tempfile.TemporaryDirectory(prefix="byoc-ranks-") as folder:
        ranks = Ranks(layout, Path(folder))
        ranks.start(arguments)
        told = forwarded = False
        looked = time.monotonic()
        while True:
            if asked and not told:
                told = True
                part.stop()
            for rank, code, line in ranks.ended():
                part.hear(rank, code, line)
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                for rank, code, line in ranks.still(limit):
                    part.hear(rank, code, line)
                part.quiet(ranks.quiet())
            verdict = part.turn()
            if (asked or part.stop_wanted) and not forwarded:
                forwarded = True
                ranks.tell_to_stop()
            if verdict is not None:
                break
            time.sleep(POLL_SECONDS)
        part.end(verdict)
        ranks.kill()
    return _said(verdict, tree)


def _said(verdict: Verdict, tree: SageMakerPaths) -> int:
    if verdict.line and verdict.code:
        print(verdict.line if verdict.code == STOPPED else f"error: {verdict.line}", file=sys.stderr)
        tree.write_failure(verdict.line)
    return 128 - verdict.code if verdict.code < 0 else verdict.code
