"""The clock that times the parts of training steps: the CPU's, or the GPU's own."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any


class StepClock:
    """The CPU's clock. `late` is the number of steps after which their marks may be read without waiting."""

    late = 0

    def mark(self) -> Any:
        return time.perf_counter()

    def seconds(self, marks: Sequence[Any]) -> tuple[float, float, float, float, float]:
        """Return the seconds of a step, in the order of timeline.COLUMNS.

        `marks` are the end of the step before, the batch, forward pass, backward pass, optimizer, and the step's end.
        """
        data, forward, backward, optimizer, rest = (self.between(a, b) for a, b in pairwise(marks))
        return data + forward + backward + optimizer + rest, data, forward, backward, optimizer

    def between(self, first: Any, second: Any) -> float:
        return float(second - first)


class GpuStepClock(StepClock):
    """Events of CUDA: what is timed is the GPU's own work, and the time it waits, without waiting for it."""

    late = 1

    def mark(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record()
        return event

    def between(self, first: Any, second: Any) -> float:
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000
