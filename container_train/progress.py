"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import TypeVar

log = logging.getLogger(__name__)

LOG_SECONDS = 15.0
MOST_AT_A_TIME = 8  # items that a thread takes: a million by themselves would take a gigabyte

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str, workers: int) -> list[R]:
    """Return the results in order, showing progress. If one raises, or a stop ends it, items not begun are dropped."""
    chunk = min(MOST_AT_A_TIME, 1 + len(items) // (4 * workers))
    with ThreadPool(workers) as pool:
        return list(track(pool.imap(function, items, chunk), what, len(items)))


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done."""
    if terminal := sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        items = tqdm(items, desc=what, total=total, leave=False)
    started = shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if not terminal and now - shown >= LOG_SECONDS:
            shown = now
            log.info("%s: %d of %d (%.0f s)", what, done, total, now - started)
