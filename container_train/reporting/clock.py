"""The time axis of a job: seconds in which it ran, without the time between its end and its restart."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from container_train.profiler.store import Floats, Phase, Series, Timeline

GAP = 60.0  # seconds without any sign of life, after which a job counts as not running


@dataclass(frozen=True)
class Clock:
    """`sessions` are the (start, end) of each run of the job, in seconds since 1970, one after the other."""

    sessions: tuple[tuple[float, float], ...] = field(default=((0.0, 0.0),))

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
        found, position = [], 0.0
        for (start, end), (later, _) in itertools.pairwise(self.sessions):
            position += end - start
            found.append((position, later - end))
        return found

    def __call__(self, times: Floats | list[float]) -> Floats:
        """Seconds on the axis for seconds since 1970; those in which the job did not run fall on the break."""
        known = np.array([edge for session in self.sessions for edge in session])
        lengths = np.diff(known, prepend=known[0])
        lengths[2::2] = 0
        result: Floats = np.interp(np.asarray(times, dtype=np.float64), known, np.cumsum(lengths))
        return result


def clock(timeline: Timeline, samples: list[Series], signs: list[float]) -> Clock:
    """`signs` are further moments at which the job lived, such as its start, in seconds since 1970."""
    spans: list[tuple[float, float]] = [(phase.start, phase.end) for phase in timeline.phases]
    steps = timeline.steps
    spans += _spans(steps.start, steps.start + np.nan_to_num(steps.total) * steps.weight)
    for series in samples:
        spans += _spans(series.times, series.times)
    spans += [(sign, sign) for sign in signs]
    spans += [(when, when) for row in timeline.epochs if (when := _time(row)) > 0]
    joined: list[list[float]] = []
    for start, end in sorted(span for span in spans if 0 < span[0] <= span[1] < math.inf):
        if joined and start - joined[-1][1] <= GAP:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return Clock(tuple((start, end) for start, end in joined)) if joined else Clock()


def _spans(starts: Floats, ends: Floats) -> list[tuple[float, float]]:
    """Spans that follow each other within GAP, as one."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    cuts = np.flatnonzero(starts[1:] - ends[:-1] > GAP)
    if not len(starts):
        return []
    return list(zip(starts[np.r_[0, cuts + 1]].tolist(), ends[np.r_[cuts, len(ends) - 1]].tolist(), strict=True))


def _time(row: dict[str, object]) -> float:
    value = row.get("time")
    return float(value) if isinstance(value, int | float) else 0.0


def leaves(phases: list[Phase]) -> dict[str, float]:
    """Seconds that each phase had for itself, without those that lie in it."""
    seconds: dict[str, float] = {}
    # At each edge the phase that began last is the innermost one.
    edges = sorted({edge for phase in phases for edge in (phase.start, phase.end)})
    waiting = sorted(phases, key=lambda phase: (phase.start, -phase.end))
    open_: list[Phase] = []
    index = 0
    for edge, following in itertools.pairwise(edges):
        while index < len(waiting) and waiting[index].start <= edge:
            open_.append(waiting[index])
            index += 1
        open_ = [phase for phase in open_ if phase.end > edge]
        if open_:
            name = open_[-1].name
            seconds[name] = seconds.get(name, 0.0) + following - edge
    return seconds
