"""Serving for long: `python tests/faults/soak.py [--minutes 30] [--engine docker] [--model DIR]` (make soak).

First the server's capacity is measured, then it gets 80 % of that, evenly in time, whatever it answers: one request in
a hundred is hostile, and a worker is killed once a minute (--kill-every). At the end comes half a minute of overload. A
virtual machine's host may take processor time away: the load is of what it leaves. What is lost is counted, and written
down as JSON and as a table. Exit code 1 where more was lost than the requests that the killed workers had in their
hands; where a hostile request got anything but 2xx or 4xx; where memory grew by over 3 % after the first fifth of the
time, which a run of less than some two minutes does not keep; or where less than 0.9 of the capacity was answered under
overload, or after it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve import artifact
from container_serve.errors import ArtifactError
from tests.bench import load
from tests.bench.arguments import existing, new_file, positive
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, serving
from tests.faults import corpus

SHARE = 0.8  # of the capacity
HOSTILE = 0.01
CAPACITY_SECONDS = 10.0
KILL_SECONDS = 60.0
PING_SECONDS = 0.5
SAMPLE_SECONDS = 5.0
SETTLING = 0.2  # of the time, in which memory is not looked at yet
DEADLINE = 55.0  # the server's own; its answer may be a little on its way
MAX_GROWTH = 0.03
OVERLOAD_SECONDS = 30.0
REST_SECONDS = 30.0  # after the overload
OVERLOAD_CALLERS = 160  # more than the queue holds
OVERLOAD = 4  # times the capacity, in requests a second, if all were refused and asked again
LEAST_SHARE = 0.9  # of the capacity, under overload and after it
PREDICTION_SECONDS = 0.025  # of the model that is made here: as long as an int8 ResNet50 takes


@dataclass
class Call:
    """One request: when it was sent and answered, and how (0: not at all)."""

    sent: float
    hostile: bool
    answered: float = 0.0
    status: int = 0
    computed: float = 0.0  # seconds, as the worker says


@dataclass
class Overload:
    """Good answers a second before, under and after an overload, had the host taken nothing; what else was answered."""

    before: float
    under: float
    after: float
    statuses: Counter[int]


@dataclass
class Soak:
    """The events of a soak; times are seconds from the beginning."""

    capacity: float  # good answers a second, had the host taken nothing
    rate: float  # of requests that were sent
    calls: list[Call] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    pings: list[tuple[float, int]] = field(default_factory=list)
    memory: list[tuple[float, int, int]] = field(default_factory=list)  # bytes of Java, of the Python processes
    wall: float = 0.0
    stolen: float = 0.0  # of the time, by the host
    overload: "Overload | None" = None

    def figures(self) -> dict[str, Any]:
        good = [call for call in self.calls if not call.hostile]
        hostile = Counter(call.status for call in self.calls if call.hostile)
        failed = [call for call in good if call.status != 200]
        # 503 is a full queue's word, which says nothing of the request: good ones, which get it too, show that.
        wrong = [c for c in self.calls if c.hostile and c.status // 100 not in (2, 4) and c.status != 503]
        killed = [call for call in failed + wrong if self._in_a_killed_worker(call)]
        before, after = self._memory()
        quick = sorted(call.answered - call.sent for call in good if call.status == 200)
        return {
            "seconds": round(self.wall),
            "capacity_per_second": round(self.capacity, 1),
            "stolen_by_the_host": round(self.stolen / self.wall, 3),
            "sent_per_second": round(len(self.calls) / self.wall, 1),
            "good_requests": len(good),
            "good_answers": len(quick),
            "lost_in_a_killed_worker": len(killed),
            "lost_otherwise": sum(not self._in_a_killed_worker(call) for call in failed),
            "lost_by_status": {str(status): n for status, n in sorted(Counter(c.status for c in failed).items())},
            "workers_killed": len(self.kills),
            "hostile_requests": sum(hostile.values()),
            "hostile_answers": {str(status): n for status, n in sorted(hostile.items())},
            "hostile_not_2xx_4xx": sum(not self._in_a_killed_worker(call) for call in wrong),
            "unanswered_after_deadline": sum(call.answered - call.sent > DEADLINE + 2 for call in self.calls),
            "p50_ms": round(1e3 * quick[len(quick) // 2], 1) if quick else None,
            "p99_ms": round(1e3 * quick[int(0.99 * len(quick))], 1) if quick else None,
            "max_ms": round(1e3 * quick[-1], 1) if quick else None,
            "computed_ms": [round(1e3 * each, 1) for each in self._computed(good)],
            "pings": {str(status): n for status, n in sorted(Counter(status for _, status in self.pings).items())},
            "memory_mb": [round(sum(each) / 1e6) for each in (before, after)],
            "java_mb": [round(java / 1e6) for java, _ in (before, after)],
            "memory_growth": round(sum(after) / sum(before) - 1, 4),
            **self._overload(),
        }

    def _overload(self) -> dict[str, Any]:
        if self.overload is None:
            return {}
        found = self.overload
        return {
            "overload_share": round(found.under / found.before, 3),
            "share_after_overload": round(found.after / found.before, 3),
            "overload_statuses": {str(status): n for status, n in sorted(found.statuses.items())},
        }

    def _in_a_killed_worker(self, call: Call) -> bool:
        """A worker that is killed takes what it has in its hands with it, which is answered 500."""
        return call.status == 500 and any(call.sent < kill + 0.1 and call.answered > kill for kill in self.kills)

    @staticmethod
    def _computed(good: list[Call]) -> tuple[float, float]:
        """Median seconds that a worker computed in, of the quickest minute and of the slowest: is the host steady?"""
        minutes = defaultdict[int, list[float]](list)
        for call in good:
            if call.status == 200:
                minutes[int(call.sent // 60)].append(call.computed)
        medians = sorted(map(statistics.median, minutes.values())) or [0.0]
        return medians[0], medians[-1]

    def _memory(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Median bytes, Java's and the others', of the first and of the last fifth, once the server has settled."""
        settled = [each for at, *each in self.memory if at > SETTLING * self.wall] or [[1, 1]]
        fifth = max(1, len(settled) // 5)

        def medians(part: list[list[int]]) -> tuple[float, float]:
            return statistics.median(java for java, _ in part), statistics.median(python for _, python in part)

        return medians(settled[:fifth]), medians(settled[-fifth:])


def faults(figures: dict[str, Any], max_growth: float = MAX_GROWTH) -> list[str]:
    """Return the parts of the promise that were not kept."""
    found = [
        f"{name}: {figures[name]}"
        for name in ("lost_otherwise", "hostile_not_2xx_4xx", "unanswered_after_deadline")
        if figures[name]
    ]
    if figures["lost_in_a_killed_worker"] > figures["workers_killed"]:
        found.append("lost_in_a_killed_worker: more than workers were killed")
    if figures["memory_growth"] >= max_growth:
        found.append(f"memory_growth: {figures['memory_growth']:.1%}")
    found += [
        f"{name}: {figures[name]}"
        for name in ("overload_share", "share_after_overload")
        if figures.get(name, 1.0) < LEAST_SHARE
    ]
    if others := set(figures.get("overload_statuses", {})) - {"200", "503", "504"}:
        found.append(f"overload_statuses: {', '.join(sorted(others))}")
    return found


class Pool:
    """Connections that stay open, as many as are needed at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, raw: bytes, keep: bool) -> load.Answer:
        """The answer; status 0 where there was none."""
        pair = self.free.pop() if keep and self.free else None
        try:
            reader, writer = pair or await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        except OSError:
            return load.NO_ANSWER
        kept = False
        try:
            writer.write(raw)
            answer = await asyncio.wait_for(load.answer(reader), load.TIMEOUT_SECONDS)
            while answer.status == 100:
                answer = await asyncio.wait_for(load.answer(reader), load.TIMEOUT_SECONDS)
            kept = answer.keep and keep
            return answer
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            return load.NO_ANSWER
        finally:
            if kept:
                self.free.append((reader, writer))
            else:
                writer.close()

    def close(self) -> None:
        for _, writer in self.free:
            writer.close()


def stolen() -> float:
    """Seconds since the boot that a virtual machine's host took for others, the mean of the cores."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0)) / (psutil.cpu_count() or 1)


async def run(server: Server, soak: Soak, seconds: float, kill_seconds: float, bodies: list[bytes]) -> None:
    begun, stolen_before = time.monotonic(), stolen()
    dice = random.Random(corpus.SEED)
    good = [load.request(body, "/invocations") for body in bodies]
    hostile = [case.raw for case in corpus.fixed()]
    pool, pending = Pool(server.port), set[asyncio.Task[None]]()

    def now() -> float:
        return time.monotonic() - begun

    async def send(raw: bytes, is_hostile: bool) -> None:
        call = Call(now(), is_hostile)
        soak.calls.append(call)
        answer = await pool.ask(raw, keep=not is_hostile)
        call.answered, call.status, call.computed = now(), answer.status, answer.computed

    async def look() -> None:
        ping = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        while now() < seconds:
            soak.pings.append((now(), (await pool.ask(ping, keep=False)).status))
            await asyncio.sleep(PING_SECONDS)

    async def weigh() -> None:
        while now() < seconds:
            found = await asyncio.to_thread(memory, server)
            soak.memory.append((now(), *found))
            await asyncio.sleep(min(SAMPLE_SECONDS, seconds / 30))

    async def kill() -> None:
        while now() + kill_seconds < seconds:
            await asyncio.sleep(kill_seconds)
            workers = server.children()
            if workers:
                soak.kills.append(now())
                dice.choice(workers).kill()
            show(soak, now(), seconds)

    others = [asyncio.create_task(each()) for each in (look, weigh, kill)]
    count = 0
    while (at := now()) < seconds:
        soak.stolen = stolen() - stolen_before
        # All that are due by now: a generator that was late makes up for it.
        while count < (at - soak.stolen) * soak.rate:
            is_hostile = dice.random() < HOSTILE
            raw = dice.choice(hostile) if is_hostile and dice.random() < 0.5 else None
            raw = raw or (corpus.mutated(dice).raw if is_hostile else good[count % len(good)])
            task = asyncio.create_task(send(raw, is_hostile))
            pending.add(task)
            task.add_done_callback(pending.discard)
            count += 1
        await asyncio.sleep(min(0.5 / soak.rate, 0.01))
    if pending:
        await asyncio.wait(pending)
    await asyncio.gather(*others)
    soak.wall = now()
    pool.close()


def capacity(
    port: int, bodies: list[bytes], callers: int, seconds: float, pause: float = 0.01
) -> tuple[float, Counter[int]]:
    """Good answers a second that so many callers get, had the host taken nothing; all statuses."""
    before = stolen()
    found = load.run(port, bodies, callers, seconds, pause=pause)
    return found.rate / (1 - min(0.9, (stolen() - before) / seconds)), found.statuses


def overloaded(server: Server, bodies: list[bytes]) -> Overload:
    before, _ = capacity(server.port, bodies, 8, CAPACITY_SECONDS)
    pause = OVERLOAD_CALLERS / (OVERLOAD * before)
    under, statuses = capacity(server.port, bodies, OVERLOAD_CALLERS, OVERLOAD_SECONDS, pause)
    time.sleep(REST_SECONDS)
    after, _ = capacity(server.port, bodies, 8, CAPACITY_SECONDS)
    return Overload(before, under, after, statuses)


def memory(server: Server) -> tuple[int, int]:
    """Bytes of Java, and of the server's Python processes; what they share is counted once."""
    java, python = server.java().pid, 0
    for process in (server.root, *server.descendants()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid != java:
                python += process.memory_full_info().pss
    return psutil.Process(java).memory_full_info().pss, python


def show(soak: Soak, at: float, seconds: float) -> None:
    bad = sum(1 for call in soak.calls if call.answered and not call.hostile and call.status != 200)
    java, python = soak.memory[-1][1:] if soak.memory else (0, 0)
    late = [c for c in soak.calls[-int(60 * soak.rate) :] if c.status == 200 and not c.hostile]
    taken = f", {soak.stolen / at:.0%} of the time stolen" if soak.stolen > 0.01 * at else ""
    print(
        f"{at / 60:5.1f} of {seconds / 60:g} min: {len(soak.calls)} sent, {bad} good ones lost,"
        f" {len(soak.kills)} workers killed, p50 {load.quantile([c.answered - c.sent for c in late], 0.5):.0f} ms,"
        f" of which {load.quantile([c.computed for c in late], 0.5):.0f} ms computed,"
        f" {java / 1e6:.0f} + {python / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}{taken}",
        file=sys.stderr,
        flush=True,
    )


def soak(
    model: Path,
    folder: Path,
    seconds: float,
    kill_seconds: float,
    bodies: list[bytes],
    *,
    rate: float | None = None,
    kind: str = "process",
) -> Soak:
    """`rate`: requests a second; None: 80 % of the capacity, which is measured either way. `kind`: or docker."""
    with serving(model, folder, kind=kind) as server:
        port = server.port
        load.run(port, bodies, 8, CAPACITY_SECONDS / 4)  # warm
        whole, _ = capacity(port, bodies, 8, CAPACITY_SECONDS)
        found = Soak(whole, rate or SHARE * whole)
        asyncio.run(run(server, found, seconds, kill_seconds, bodies))
        found.overload = overloaded(server, bodies)
        return found


def table(figures: dict[str, Any]) -> str:
    width = max(map(len, figures))
    return "\n".join(f"{name.replace('_', ' '):{width}}  {value}" for name, value in figures.items())


def stopped(number: int, frame: object) -> NoReturn:
    """As Ctrl-C does: the server and its folder go too."""
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=positive, default=30, help="(default: %(default)s)")
    parser.add_argument(
        "--kill-every", type=positive, default=KILL_SECONDS, metavar="SECONDS", help="(default: %(default)s)"
    )
    parser.add_argument("--engine", choices=("process", "docker"), default="process", help="(default: %(default)s)")
    parser.add_argument("--model", type=existing, help="artifact to serve (default: a small one, made here)")
    parser.add_argument(
        "--out", type=new_file, default=Path(__file__).with_name("soak.json"), help="(default: %(default)s)"
    )
    options = parser.parse_args()
    if options.model is not None:
        try:
            artifact.read(options.model)
        except ArtifactError as error:
            parser.error(f"--model {options.model}: {error}")
    signal.signal(signal.SIGTERM, stopped)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        model = options.model or write_model(Path(folder) / "model", seconds=PREDICTION_SECONDS)
        bodies = [picture(color, size=(500, 375)) for color in ("red", "lime", "blue")]
        seconds, every = 60 * options.minutes, options.kill_every
        found = soak(model.resolve(), Path(folder) / "run", seconds, every, bodies, kind=options.engine)
    figures = found.figures()
    print(table(figures))
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    missed = faults(figures)
    for line in missed:
        print(f"not kept: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("soak: stopped")
