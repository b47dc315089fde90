"""The same work for many things, in threads that are not waited for when the work is broken off."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

THREADS = 16
GRACE_SECONDS = 3.0  # for work in flight when the rest is given up

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], things: Iterable[T], then: Callable[[T, R], None], threads: int = THREADS) -> None:
    """then(thing, work(thing)) for all things, in the order in which they are ready; `then` in the caller's thread.

    The first exception ends it, and Ctrl-C. Nothing is kept of what is done, so that millions of things need no more
    memory than a few. The threads are daemons: a call that hangs in the network does not hold up the program's end.
    """
    source, lock, stop = iter(things), threading.Lock(), threading.Event()
    results: queue.SimpleQueue[tuple[T, R] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(threads * 4)  # results that may wait

    def go() -> None:
        try:
            while room.acquire() and not stop.is_set():
                with lock:
                    thing = next(source)
                results.put((thing, work(thing)))
        except StopIteration:
            pass
        except BaseException as error:
            results.put(error)
        results.put(None)

    workers = [threading.Thread(target=go, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        running = threads
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                room.release()
                then(*result)
    finally:
        stop.set()
        for _ in workers:
            room.release()
        until = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
