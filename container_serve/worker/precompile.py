"""The graph, compiled once for all workers: by a process of its own, while Java starts.

To compile a ResNet50 takes a core 0.6 s, to take over what is compiled 0.2 s. Each worker would compile for itself,
all at the same time, after Java has started; and so would every worker that replaces one that died.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from container_serve import artifact, processes

CACHE = "graphs"  # OpenVINO's cache, in the run directory
COMPILING = "graph.compiling"  # holds the id of the process that fills it
TICK = 0.01


def start(model_dir: Path, run: Path, threads: int) -> None:
    """Begin, for workers of `threads` threads each. What fails here is left to the workers, who say why."""
    parent = os.getpid()
    child = os.fork()
    if child:
        with suppress(OSError):  # a full disk: each worker compiles for itself
            (run / COMPILING).write_text(str(child))
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


def wait(run: Path, seconds: float) -> Path | None:
    """The cache that `start` has filled, None where it was not called; waits for its process, while there is one."""
    deadline = time.monotonic() + seconds
    try:
        child = int((run / COMPILING).read_text())
    except (FileNotFoundError, ValueError):
        return None
    while processes.alive(child) and time.monotonic() < deadline:
        time.sleep(TICK)
    return run / CACHE
