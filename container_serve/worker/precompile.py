"""The graph, compiled once for all workers: by a process of its own, while Java starts.

To compile a ResNet50 takes a core 0.6 s, to take over what is compiled 0.2 s. Each worker would compile for itself,
all at the same time, after Java has started; and so would every worker that replaces one that died.
"""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

from container_serve import artifact, processes

CACHE = "graphs"  # OpenVINO's cache, in the run directory
LOCK = "graphs.lock"  # held by the process that fills it, until its end


def start(model_dir: Path, run: Path, threads: int) -> None:
    """Begin, for workers of `threads` threads each. What fails here is left to the workers, who say why."""
    parent = os.getpid()
    with suppress(OSError), (run / LOCK).open("wb") as lock:  # a full disk: each worker compiles for itself
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fork():
            return
        try:
            # Here, and not in the supervisor, whose first task is to start Java.
            from container_serve.predictor import Predictor

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            processes.die_with_parent(parent)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            Predictor(artifact.read(model_dir, verify=False), threads, cache=run / CACHE)
        finally:
            os._exit(0)  # without a trace, and without what the supervisor has yet to do at its end


def wait(run: Path) -> Path | None:
    """Wait until the process of `start` has ended. Returns the cache that it has filled, None where there was none."""
    try:
        with (run / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return run / CACHE
    except FileNotFoundError:
        return None
