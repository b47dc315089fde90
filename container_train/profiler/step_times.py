"""Dataloader, MaxInitializationTime and StepOutlier: what the training loop's own clock says."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.monitoring.findings import Evidence, Finding
from container_train.profiler.evidence import Context, fired, not_applicable, ok, waiting

MIN_STEPS = 20
NO_STEPS = "no training step was timed"


def dataloader(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """Dataloader: the decoding processes are fewer than `min_threshold` % of the cores, or more than `max_threshold` %.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Ours: the number of processes
    alone is held against nobody. It fires when, besides, training waits for its batches in more than `wait_threshold` %
    of the time of its steps (0: as documented); and it fires, however many processes there are, when training waits in
    more than `wait_limit` % of that time. Cores are those that the container may use.
    """
    steps, job = context.timeline.steps, context.job
    if job.get("feature_cache"):
        return not_applicable("training reads features that are in memory: there is no data loader")
    if len(steps) < MIN_STEPS:
        return waiting(len(steps), MIN_STEPS, "steps") if len(steps) else not_applicable(NO_STEPS)
    waited = 100 * float((steps.data * steps.weight).sum() / max((steps.total * steps.weight).sum(), 1e-9))
    cores, workers = float(job.get("cpus") or 0), job.get("workers")
    words = f"training waited for data in {waited:.0f} % of the time of its steps"
    low, high, limit = (float(parameters[name]) for name in ("min_threshold", "max_threshold", "wait_limit"))
    if cores and workers is not None:
        share = 100 * int(workers) / cores
        words += f"; {workers} decoding processes for {cores:g} cores"
        if not low <= share <= high and waited >= float(parameters["wait_threshold"]):
            found = Evidence(share, low if share < low else high, mode="TRAIN", time=float(steps.start[-1]))
            more = "more" if share < low else "fewer"
            return fired(
                f"{words}, {share:.0f} % of them: outside {low:g} to {high:g} %",
                f"let {more} processes decode (workers; -1 is one a core); in docker run they need --shm-size",
                len(steps), 1, found,
            )  # fmt: skip
    if waited > limit:
        slow = np.flatnonzero(steps.data > steps.total * limit / 100)
        first, last = (
            Evidence(
                float(100 * steps.data[i] / steps.total[i]), limit, int(steps.number[i]), "TRAIN",
                time=float(steps.start[i]),
            )
            for i in (slow[0], slow[-1])
        )  # fmt: skip
        return fired(
            f"{words}: more than {limit:g} %",
            "decode in more processes (workers), with smaller pictures, from a faster disk; without augmentation the"
            " frozen layers' features are cached, and nothing is decoded in training",
            len(steps), len(slow), first, last,
        )  # fmt: skip
    return ok(words, len(steps))


def initialization(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """MaxInitializationTime: more than `threshold` minutes from the job's start to its first step.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Checking the pictures,
    loading weights and running the frozen layers for the feature cache are all before the first step.
    """
    started, threshold = context.job.get("started"), float(parameters["threshold"])
    if not started:
        return not_applicable("the job's start is not known")
    # A restarted job has steps of the run before, too.
    steps = context.timeline.steps
    own = np.flatnonzero(steps.start >= float(started))
    if len(own):
        end, what = float(steps.start[own[0]]), "the first step came after"
    else:
        ended = context.job.get("ended")
        end, what = float(ended) if ended else time.time(), "there was no step in"
    minutes = (end - float(started)) / 60
    words = f"{what} {minutes:.1f} minutes"
    if minutes > threshold:
        phases = [phase for phase in context.timeline.phases if phase.start < end]
        longest = max(phases, key=lambda phase: phase.end - phase.start, default=None)
        most = f"; most of it went into {longest.name}" if longest else ""
        return fired(
            f"{words}, more than {threshold:g}{most}",
            "frozen layers run once a picture: use a GPU, smaller pictures (image-size) or feature-cache off; weights"
            " come faster from a channel than from the network",
            1, 1, Evidence(minutes, threshold, step=int(steps.number[own[0]]) if len(own) else None, time=end),
        )  # fmt: skip
    return ok(words, 1) if len(own) else Finding("", "profiler", "waiting", words)


def outlier(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """StepOutlier: more than `n_outliers` steps took longer than the mean and `stddev` standard deviations.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. The parameter `mode` is
    missing: steps are timed in training only.
    """
    steps = context.timeline.steps
    if len(steps) < MIN_STEPS:
        return waiting(len(steps), MIN_STEPS, "steps") if len(steps) else not_applicable(NO_STEPS)
    mean, deviation = float(steps.total.mean()), float(steps.total.std())
    limit = mean + float(parameters["stddev"]) * deviation
    hits = np.flatnonzero(steps.total > limit)
    words = (
        f"{len(hits)} of {len(steps)} steps took longer than {1000 * limit:.1f} ms"
        f" (mean {1000 * mean:.1f} ms, standard deviation {1000 * deviation:.1f} ms)"
    )
    if len(hits) <= int(parameters["n_outliers"]):
        return ok(f"{words}; up to {int(parameters['n_outliers'])} are taken for normal", len(steps))
    first, last = (
        Evidence(float(steps.total[i]), limit, int(steps.number[i]), "TRAIN", time=float(steps.start[i]))
        for i in (hits[0], hits[-1])
    )
    parts = {name: float(getattr(steps, name)[hits].sum()) for name in ("data", "forward", "backward", "optimizer")}
    most = max(parts, key=lambda name: parts[name])
    return fired(
        f"{words}; in these most time went into {most}",
        "look at what happens at these times in the report: waits for data, disks, other work on the machine",
        len(steps), len(hits), first, last,
    )  # fmt: skip
