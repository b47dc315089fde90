"""A load generator: so many connections that each send one picture after the other, and the time of every answer."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

TIMEOUT_SECONDS = 60.0  # as the platform's


@dataclass
class Load:
    """The answers that came back within the time: seconds of each 200, answers by status (0: none at all)."""

    wall: float = 0.0
    seconds: list[float] = field(default_factory=list)
    around: list[float] = field(default_factory=list)  # of `seconds`, what the worker says it did not compute in
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.seconds) / self.wall

    def quantile(self, share: float) -> float:
        """Milliseconds; not-a-number without a good answer."""
        return quantile(self.seconds, share)


class Answer(NamedTuple):
    """An answer's status, whether its connection stays open, and the seconds in its Server-Timing (0: it has none)."""

    status: int
    keep: bool
    computed: float


NO_ANSWER = Answer(0, False, 0.0)


def quantile(seconds: Sequence[float], share: float) -> float:
    """Milliseconds; not-a-number of nothing."""
    if not seconds:
        return float("nan")
    return 1e3 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def run(
    port: int,
    bodies: Sequence[bytes],
    connections: int,
    seconds: float,
    path: str = "/invocations",
    content_type: str = "image/jpeg",
    pause: float = 0.01,
) -> Load:
    """Send `bodies` in turn over `connections` for `seconds`; what is on its way by then is waited for and counted.

    A caller whose connection has ended, as it does with a refusal, asks again `pause` seconds later.
    """
    requests = [request(body, path, content_type) for body in bodies]
    return asyncio.run(_run(port, requests, connections, seconds, pause))


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float, pause: float) -> Load:
    load = Load()
    begun = time.perf_counter()

    async def one(first: int) -> None:
        reader = writer = None
        index = first
        while time.perf_counter() - begun < seconds:
            sent = time.perf_counter()
            try:
                if writer is None or reader is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(requests[index % len(requests)])
                got = await asyncio.wait_for(answer(reader), TIMEOUT_SECONDS)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                got = NO_ANSWER
            load.statuses[got.status] += 1
            if got.status == 200:
                load.seconds.append(time.perf_counter() - sent)
                if got.computed:
                    load.around.append(load.seconds[-1] - got.computed)
            if not got.keep:
                if writer is not None:
                    writer.close()
                reader = writer = None
                await asyncio.sleep(pause)
            index += 1
        if writer is not None:
            writer.close()

    await asyncio.gather(*(one(index) for index in range(connections)))
    load.wall = time.perf_counter() - begun
    return load


def request(body: bytes, path: str, content_type: str = "image/jpeg") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer, read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    computed = sum(map(float, re.findall(r"dur=([0-9.]+)", fields.get("server-timing", "")))) / 1e3
    return Answer(status, fields.get("connection") != "close", computed)
