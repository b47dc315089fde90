"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

LOG_SECONDS = 15.0

T = TypeVar("T")


@contextlib.contextmanager
def dropped(pool: ThreadPoolExecutor) -> Iterator[None]:
    """What is not begun is not done any more when an exception, a stop for instance, ends the work."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    started = shown = time.monotonic()
    for done, item in enumerate(tqdm(items, desc=what, total=total, leave=False) if terminal else items, 1):
        yield item
        now = time.monotonic()
        if not terminal and now - shown >= LOG_SECONDS:
            shown = now
            log.info("%s: %d of %d (%.0f s)", what, done, total, now - started)
