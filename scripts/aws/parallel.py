"""The same work for many things, in threads that are not waited for when the work is broken off."""

from collections.abc import Callable, Iterable
from multiprocessing.pool import ThreadPool
from typing import TypeVar

THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], things: Iterable[T], then: Callable[[T, R], None], threads: int = THREADS) -> None:
    """then(thing, work(thing)) for all things, in the order in which they are ready; `then` in the caller's thread.

    The first exception ends it, and Ctrl-C. The threads are daemons: a call that hangs in the network does not hold up
    the program's end.
    """
    with ThreadPool(threads) as pool:
        for thing, result in pool.imap_unordered(lambda thing: (thing, work(thing)), things):
            then(thing, result)
