"""What the profiler's rules judge, and the forms of their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from container_train.monitoring.findings import Evidence, Finding
from container_train.profiler import store
from container_train.profiler.store import Series


@dataclass(frozen=True)
class Context:
    """All that a job has written so far."""

    job: Mapping[str, Any]
    system: store.System
    timeline: store.Timeline

    def gpus(self, what: str = store.GPU) -> dict[tuple[str, str], Series]:
        """(node, GPU) -> a dimension of it."""
        return {key: series for key, series in self.system.series(what).items() if len(series.times)}

    def no_gpu(self) -> Finding:
        if not self.system.nodes():
            return not_applicable("there are no system metrics (profile-interval is 0, or the job was too short)")
        return not_applicable("the job ran without a GPU, and the rule asks whether one is used well")


def not_applicable(reason: str) -> Finding:
    return Finding("", "profiler", "not_applicable", reason)


def waiting(have: int, need: int, what: str = "values") -> Finding:
    return Finding(
        "", "profiler", "waiting", f"{have} of the {need} {what} that it takes before it judges", checked=have
    )


def fired(reason: str, advice: str, checked: int, hits: int, first: Evidence, last: Evidence | None = None) -> Finding:
    return Finding(
        "", "profiler", "fired", reason, advice, checked=checked, fired=hits, first=first, last=last or first
    )


def ok(reason: str, checked: int) -> Finding:
    return Finding("", "profiler", "ok", reason, checked=checked)


def at(series: Series, times: store.Floats) -> store.Floats:
    """The values of `series` (not empty) at `times`: the newest at or before each, for the first ones the first."""
    indices = np.searchsorted(series.times, times + 1e-3, side="right") - 1
    result: store.Floats = series.values[np.clip(indices, 0, None)]
    return result


def windows(count: int, patience: int, window: int) -> list[slice]:
    """The slices that a rule judges of `count` values: the newest `window` of them at `patience`, and so on."""
    return [slice(max(0, end - window), end) for end in range(max(patience, 1), count + 1, window)]


def evidence(
    hits: npt.NDArray[np.intp], values: store.Floats, times: store.Floats, threshold: float, tensor: str | None = None
) -> tuple[Evidence, Evidence]:
    """First and last of the `hits`, indices into `values` and `times`."""
    first, last = (
        Evidence(float(values[i]), threshold, tensor=tensor, time=float(times[i])) for i in (hits[0], hits[-1])
    )
    return first, last
