"""Dataloader, MaxInitializationTime and StepOutlier: what the training loop's own clock says.

https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html
"""

import time

import numpy as np

from container_train.monitoring.findings import Evidence, Finding, Parameters, found
from container_train.profiler.evidence import Context, too_few
from container_train.profiler.store import Steps

MIN_STEPS = 20


def dataloader(context: Context, parameters: Parameters) -> Finding:
    """Dataloader: the decoding processes are fewer than `min_threshold` % of the cores, or more than `max_threshold` %.

    Ours: the number of processes alone is no fault. It fires when, besides, training waits for its batches in more than
    `wait_threshold` % of the time of its steps (0: as documented); and it fires, however many processes there are, when
    training waits in more than `wait_limit` % of that time. Cores are those that the container may use.
    """
    steps, job = context.timeline.steps, context.job
    if job.get("feature_cache"):
        return found("not_applicable", "training reads features that are in memory: there is no data loader")
    if len(steps) < MIN_STEPS:
        return _too_few(steps)
    waited = 100 * float((steps.data * steps.weight).sum() / max((steps.total * steps.weight).sum(), 1e-9))
    cores, workers = float(job.get("cpus") or 0), job.get("workers")
    words = f"training waited for data in {waited:.0f} % of the time of its steps"
    low, high, limit = (parameters[name] for name in ("min_threshold", "max_threshold", "wait_limit"))
    if cores and workers is not None:
        share = 100 * int(workers) / cores
        words += f"; {workers} decoding processes for {cores:g} cores"
        if not low <= share <= high and waited >= parameters["wait_threshold"]:
            at = Evidence(share, low if share < low else high, mode="TRAIN", time=float(steps.start[-1]))
            more = f"too {'few' if share < low else 'many'}, {share:.0f} % of them: outside {low:g} to {high:g} %"
            return found("fired", f"{words}, {more}", len(steps), fired=1, first=at, last=at)
    if waited > limit:
        slow = np.flatnonzero(steps.data > steps.total * limit / 100)
        first, last = (_evidence(steps, i, 100 * steps.data[i] / steps.total[i], limit) for i in (slow[0], slow[-1]))
        return found("fired", f"{words}: more than {limit:g} %", len(steps), fired=len(slow), first=first, last=last)
    return found("ok", words, len(steps))


def max_initialization_time(context: Context, parameters: Parameters) -> Finding:
    """MaxInitializationTime: more than `threshold` minutes from the job's start to its first step.

    Checking the images, loading weights and running the frozen layers for the feature cache are all before that.
    """
    started, threshold = context.job.get("started"), parameters["threshold"]
    if not started:
        return found("not_applicable", "the job's start is not known")
    steps = context.timeline.steps
    if len(steps):
        end, what = float(steps.start[0]), "the first step came after"
    else:
        end, what = float(context.job.get("ended") or time.time()), "there was no step in"
    minutes = (end - float(started)) / 60
    words = f"{what} {minutes:.1f} minutes"
    if minutes > threshold:
        phases = [phase for phase in context.timeline.phases if phase.start < end]
        longest = max(phases, key=lambda phase: phase.end - phase.start, default=None)
        most = f"; most of it went into {longest.name}" if longest else ""
        at = Evidence(minutes, threshold, step=int(steps.number[0]) if len(steps) else None, time=end)
        return found("fired", f"{words}, more than {threshold:g}{most}", 1, fired=1, first=at, last=at)
    return found("ok", words, 1) if len(steps) else found("waiting", words)


def step_outlier(context: Context, parameters: Parameters) -> Finding:
    """StepOutlier: more than `n_outliers` steps took longer than the mean and `stddev` standard deviations.

    The parameter `mode` is missing: steps are timed in training only.
    """
    steps = context.timeline.steps
    if len(steps) < MIN_STEPS:
        return _too_few(steps)
    mean, deviation = float(steps.total.mean()), float(steps.total.std())
    limit = mean + parameters["stddev"] * deviation
    hits = np.flatnonzero(steps.total > limit)
    words = (
        f"{len(hits)} of {len(steps)} steps took longer than {1000 * limit:.1f} ms"
        f" (mean {1000 * mean:.1f} ms, standard deviation {1000 * deviation:.1f} ms)"
    )
    if len(hits) <= parameters["n_outliers"]:
        return found("ok", f"{words}; up to {parameters['n_outliers']} are normal", len(steps))
    first, last = (_evidence(steps, i, steps.total[i], limit) for i in (hits[0], hits[-1]))
    parts = {name: float(getattr(steps, name)[hits].sum()) for name in ("data", "forward", "backward", "optimizer")}
    most = max(parts, key=lambda name: parts[name])
    words += f"; in these most time went into {most}"
    return found("fired", words, len(steps), fired=len(hits), first=first, last=last)


def _too_few(steps: Steps) -> Finding:
    return (
        too_few(len(steps), MIN_STEPS, "steps") if len(steps) else found("not_applicable", "no training step was timed")
    )


def _evidence(steps: Steps, index: int, value: float, threshold: float) -> Evidence:
    return Evidence(float(value), threshold, int(steps.number[index]), "TRAIN", time=float(steps.start[index]))
