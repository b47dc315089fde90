"""The time axis of a job: seconds in which it ran, without the time between its end and its restart."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from container_train.profiler.store import Floats, Phase, Series, Timeline

GAP = 60.0  # seconds without any sign of life, after which a job counts as not running


@dataclass(frozen=True)
class Clock:
    """`sessions` are the (start, end) of each run of the job, in seconds since 1970, one after the other."""

    sessions: tuple[tuple[float, float], ...] = ((0.0, 0.0),)

    @property
    def start(self) -> float:
        return self.sessions[0][0]

    @property
    def end(self) -> float:
        return self.sessions[-1][1]

    @property
    def length(self) -> float:
        """Seconds in which the job ran."""
        return sum(end - start for start, end in self.sessions)

    @property
    def breaks(self) -> list[tuple[float, float]]:
        """(where on the axis, for how many seconds it did not run) of every restart."""
        ends = itertools.accumulate(end - start for start, end in self.sessions)
        gaps = (later - end for (_, end), (later, _) in itertools.pairwise(self.sessions))
        return list(zip(ends, gaps, strict=False))

    def __call__(self, times: Floats | list[float]) -> Floats:
        """Seconds on the axis for seconds since 1970; those in which the job did not run fall on the break."""
        known = np.array(self.sessions).reshape(-1)
        lengths = np.diff(known, prepend=known[0])
        lengths[2::2] = 0
        result: Floats = np.interp(np.asarray(times, dtype=np.float64), known, np.cumsum(lengths))
        return result


def clock(timeline: Timeline, samples: list[Series], signs: list[Any]) -> Clock:
    """`signs` are further moments at which the job lived, such as its start, in seconds since 1970."""
    steps = timeline.steps
    moments = [float(sign) for sign in signs if isinstance(sign, int | float)]
    moments += [time for series in samples for time in series.times.tolist()]
    starts = np.array([*(phase.start for phase in timeline.phases), *steps.start, *moments])
    ends = np.array([*(phase.end for phase in timeline.phases), *(steps.start + steps.total * steps.weight), *moments])
    known = np.isfinite(ends) & (starts > 0)
    order = np.argsort(starts[known], kind="stable")
    starts, ends = starts[known][order], np.maximum.accumulate(ends[known][order])
    if not len(starts):
        return Clock()
    cuts = np.flatnonzero(starts[1:] - ends[:-1] > GAP)
    first, last = np.r_[0, cuts + 1], np.r_[cuts, len(ends) - 1]
    return Clock(tuple(zip(starts[first].tolist(), ends[last].tolist(), strict=True)))


def leaves(phases: list[Phase]) -> dict[str, float]:
    """Seconds that each phase had for itself, without the phases within it."""
    seconds: dict[str, float] = {}
    edges = sorted({edge for phase in phases for edge in (phase.start, phase.end)})
    nested = sorted(phases, key=lambda phase: (phase.start, -phase.end))
    index, under_way = 0, list[Phase]()
    for edge, following in itertools.pairwise(edges):
        while index < len(nested) and nested[index].start <= edge:
            under_way.append(nested[index])
            index += 1
        under_way = [phase for phase in under_way if phase.end > edge]
        if under_way:  # the one that began last is the innermost
            name = under_way[-1].name
            seconds[name] = seconds.get(name, 0.0) + following - edge
    return seconds
