"""The detail of some steps, every operator and kernel of them, by torch.profiler: a trace for Chrome's tracing page."""

import logging
import os
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger(__name__)

NAME = "trace.json.gz"  # opens in chrome://tracing and ui.perfetto.dev


class Trace:
    """Records the `steps` 10:20, from 10 to before 20, counted from this run's first one, and writes `folder`/NAME.

    The step before is run under the profiler too, but not kept: starting it takes time.
    """

    def __init__(self, steps: str, folder: Path) -> None:
        self.first, end = map(int, steps.split(":"))
        self.path, self.over = folder / NAME, False
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it takes a machine without a GPU for an error
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a window from step 0 on has no step to warm up in
            rounds = schedule(wait=max(0, self.first - 1), warmup=min(1, self.first), active=end - self.first, repeat=1)
            activities = [ProfilerActivity.CPU, *gpu]
            self.profiler: profile = profile(activities=activities, schedule=rounds, on_trace_ready=self._write)
            self.profiler.start()

    def step(self) -> None:
        """Count a step that is over."""
        if not self.over:
            self.profiler.step()

    def close(self) -> None:
        """End the window, here if it did not end before."""
        if not self.over:
            self.profiler.stop()
        if not self.over:
            self.over = True
            log.warning("torch-profile: there was no step %d, the run had %d", self.first, self.profiler.step_num)

    def _write(self, profiler: profile) -> None:
        self.over = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.path))
        size = self.path.stat().st_size / 1e6
        log.info("torch-profile: %s, %.1f MB: open it in chrome://tracing or ui.perfetto.dev", self.path, size)
