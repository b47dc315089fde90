"""How far long work has come: a bar on a terminal, a line every few seconds in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

LOG_EVERY_SECONDS = 10.0


def say(message: str) -> None:
    """A line for people; results alone go to standard output."""
    print(message, file=sys.stderr, flush=True)


class Progress:
    """Bytes done, on standard error; `total` is None where it is not known."""

    def __init__(self, name: str, total: int | None, done: int = 0) -> None:
        self.name, self.total, self.done = name, total, done
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name)
        self.said = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.said >= LOG_EVERY_SECONDS:
            self.said = time.monotonic()
            share = f" of {self.total / 1e6:.0f} MB ({self.done / self.total:.0%})" if self.total else " MB"
            say(f"{self.name}: {self.done / 1e6:.0f}{share}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
