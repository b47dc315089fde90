"""The same work for many things, in threads that are not waited for when the work is broken off."""

import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from typing import TypeVar

THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


def gather(work: Callable[[T], R], things: Iterable[T], threads: int = THREADS) -> list[R]:
    """work(thing) of all things, in their order."""
    made: dict[int, R] = {}
    each(lambda one: work(one[1]), enumerate(things), lambda one, result: made.update({one[0]: result}), threads)
    return [made[number] for number in range(len(made))]


def each(work: Callable[[T], R], things: Iterable[T], then: Callable[[T, R], None], threads: int = THREADS) -> None:
    """then(thing, work(thing)) for all things, in the order in which they are ready; `then` in the caller's thread.

    The first exception ends it, and Ctrl-C. Nothing is kept of what is done, so that millions of things need no more
    memory than a few. The threads are daemons: a call that hangs in the network does not hold up the program's end.
    """
    room, over = threading.Semaphore(threads * 4), threading.Event()

    def lazily() -> Iterator[T]:
        for thing in things:
            room.acquire()
            if over.is_set():
                return
            yield thing

    with ThreadPool(threads) as pool:
        try:
            for thing, result in pool.imap_unordered(lambda thing: (thing, work(thing)), lazily()):
                room.release()
                then(thing, result)
        finally:
            over.set()
            room.release()
