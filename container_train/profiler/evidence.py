"""The data that the profiler's rules judge, and the forms of their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from container_train.monitoring.findings import Finding, found
from container_train.profiler import store
from container_train.profiler.store import Series

NO_METRICS = "there are no system metrics (profile-interval is 0, or the job was too short)"
NO_GPU = "the job ran without a GPU, and the rule asks whether one is used well"


@dataclass(frozen=True)
class Context:
    """All that a job has written so far."""

    job: Mapping[str, Any]
    system: store.System
    timeline: store.Timeline

    def series(self, dimension: str) -> dict[str, Series]:
        """By device: gpu0, gpu1."""
        return {name: series for (_, name), series in self.system.series(dimension).items()}

    def no_gpu(self) -> Finding:
        return found("not_applicable", NO_GPU if self.system.metrics else NO_METRICS)

    def mean(self, dimension: str, times: store.Floats) -> store.Floats | None:
        """The mean over all devices at `times`; None where the dimension was not measured."""
        own = self.series(dimension).values()
        return np.mean([at(series, times) for series in own], axis=0) if own else None


def too_few(have: int, need: int, what: str = "values") -> Finding:
    return found("waiting", f"{have} of {need} {what} needed before it can judge", have)


def at(series: Series, times: store.Floats) -> store.Floats:
    """The values of `series` (not empty) at `times`: the newest at or before each, for the first ones the first."""
    indices = np.searchsorted(series.times, times + 1e-3, side="right") - 1
    result: store.Floats = series.values[np.clip(indices, 0, None)]
    return result


def windows(count: int, patience: int, window: int) -> list[slice]:
    """The slices that a rule judges of `count` values: the newest `window` of them at `patience`, and so on."""
    return [slice(max(0, end - window), end) for end in range(max(patience, 1), count + 1, window)]
