"""The detail of some steps, every operator and kernel of them, by torch.profiler: a trace for Chrome's tracing page."""

import logging
import os
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger(__name__)

NAME = "trace.json.gz"  # opens in chrome://tracing and ui.perfetto.dev
MAX_BYTES = 100 * 2**20


def window(text: str) -> tuple[int, int]:
    """`10:20` -> (10, 20), the steps from 10 to before 20, as hyperparameters.steps has checked it."""
    first, _, end = text.partition(":")
    return int(first), int(end)


class Trace:
    """Records the steps of a window, counted from the first step of this run of the job, and writes `folder`/NAME.

    The step before is run under the profiler too, but not kept: starting it takes time.
    """

    def __init__(self, steps: tuple[int, int], folder: Path) -> None:
        self.first, self.end = steps
        self.path = folder / NAME
        self.count = 0
        self.profiler: profile | None = None
        self.over = False

    def step(self) -> None:
        """To be called before the first step, and after each."""
        if self.over:
            return
        if self.profiler is not None:
            self.profiler.step()
        if self.count == max(0, self.first - 1):
            self._start(warmup=min(1, self.first))
        if self.count == self.end:
            self.close()
        self.count += 1

    def _start(self, warmup: int) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it takes a machine without a GPU for an error
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a window from step 0 on has no step to warm up in
            # One more than there are: the profiler must not end by itself, close() writes.
            rounds = schedule(wait=0, warmup=warmup, active=self.end - self.first + 1, repeat=1)
            self.profiler = profile(activities=[ProfilerActivity.CPU, *gpu], schedule=rounds)
            self.profiler.start()

    def close(self) -> None:
        """End the window, here if it did not end before, and write what there is of it."""
        profiler, self.profiler, over, self.over = self.profiler, None, self.over, True
        if over:
            return
        if profiler is None:
            log.warning("torch-profile: there was no step %d, the run had %d", self.first, self.count)
            return
        profiler.stop()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.path))
        size = self.path.stat().st_size
        if size > MAX_BYTES:
            self.path.unlink()
            log.warning("torch-profile: the trace took %.0f MB and was removed: ask for fewer steps", size / 1e6)
            return
        log.info("torch-profile: %s, %.1f MB: open it in chrome://tracing or ui.perfetto.dev", self.path, size / 1e6)
