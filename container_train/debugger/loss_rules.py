"""overfit, overtraining, loss_not_decreasing and class_imbalance.

Their definitions are those of https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html; a rule's
docstring says what was chosen where that leaves something open. That document speaks of steps. A step of an evaluation
is one batch, and the next is another batch with the very same weights: compared with each other, they tell nothing.
Chosen: a whole evaluation is one step of its mode.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from container_train.debugger.history import History
from container_train.monitoring.findings import (
    Evidence,
    Finding,
    Hit,
    Parameters,
    Severity,
    found,
    judged,
)
from container_train.reporting.words import count, figure

LOSSES = 10  # saved training losses whose mean stands for the loss at a step
LEAST = 5  # images of a class that have to be seen before its mispredictions are a share
RISEN, FEW = 0.05, 5  # share of the lowest mean of a FEW losses by which the last ones are worse
LEARNED = 0.1  # share of the first loss by which it has to have fallen for something to have been learned
DIVERGED = 3.0  # times the loss of guessing: a training loss above that at the end of the newest epoch
MIXING = ("label-smoothing", "mixup", "cutmix", "class-weights")
"""Hyperparameters that make the training loss another one: soft labels, for example, have an entropy of their own."""
NO_LOSSES = "no losses of the training and of an evaluation were saved, both of which it compares"


def _risen(losses: Sequence[float]) -> bool:
    """Tell whether losses, in means of a few as single ones are noisy, have risen from their lowest by over RISEN."""
    few = max(1, min(FEW, len(losses) // 3))
    means = [sum(losses[at : at + few]) / few for at in range(len(losses) - few + 1)]
    return bool(means) and means[-1] > (1 + RISEN) * min(means)


def overfit(history: History, parameters: Parameters) -> Finding:
    """Fires when (mean validation loss - mean training loss) / mean training loss is above `ratio_threshold`.

    For `patience` steps, from training step `start_step` on. Chosen: a comparison is made at each evaluation, with the
    mean over its images and over those of the training steps saved since the evaluation before; `patience` counts
    evaluations one after another. A gap alone is an information, as pretrained features know the training images soon;
    it is a warning when the validation loss has also risen, or is above that of guessing. Losses of smoothed or mixed
    labels, or weighted by class, are not comparable.
    """
    if mixed := [f"{name} {value}" for name in MIXING if (value := history.setting(name)) not in (None, 0, "none")]:
        return found(
            "not_applicable", f"the training loss is not comparable with the validation loss: {', '.join(mixed)}"
        )
    limit, over, hits = parameters["ratio_threshold"], 0, list[Hit]()
    compared = [e for e in history.evaluations if e.before >= parameters["start_step"] and e.train.images]
    for evaluation in compared:
        train, valid = evaluation.train.value, evaluation.valid.value
        ratio = (valid - train) / train if train > 0 else math.inf if valid > 0 else 0.0
        over = over + 1 if ratio > limit else 0
        if over >= max(1, parameters["patience"]):
            much = f"{ratio:.0%} more, " if math.isfinite(ratio) else ""
            reason = (
                f"after {count(evaluation.before, 'training step')} the validation loss was {figure(valid)}, the"
                f" training loss {figure(train)}: {much}up to {limit:.0%} is allowed"
            )
            hits.append((reason, Evidence(ratio, limit, evaluation.before, "EVAL", "loss")))
    if not compared:
        return found("waiting", NO_LOSSES)
    losses = [evaluation.valid.value for evaluation in compared]
    guessing = math.log(history.job.get("classes") or math.inf)
    severity: Severity = "warning" if _risen(losses) or losses[-1] > guessing else "information"
    return replace(judged(hits, len(compared), f"{len(compared)} evaluations compared"), severity=severity)


def overtraining(history: History, parameters: Parameters) -> Finding:
    """Fires when the losses, having fallen first, find no new optimum any more.

    `patience_train` and `patience_validation` are the steps to wait until a loss is considered not to be improving,
    `delta` is how far it has to fall for a new optimum. How the two work together is left open. Chosen: it fires when
    the validation loss has not improved for `patience_validation` evaluations, or neither loss for `patience_train`.
    Losses that never improved are loss_not_decreasing's, not over-training; at the end of a schedule no loss improves.
    """
    train, valid = parameters["patience_train"], parameters["patience_validation"]
    best, stale, fell = [math.inf, math.inf], [0, 0], [False, False]
    hits, checked = list[Hit](), 0
    for seen, evaluation in enumerate((e for e in history.evaluations if e.train.images), 1):
        for i, loss in enumerate((evaluation.train.value, evaluation.valid.value)):
            if loss < best[i] - parameters["delta"]:
                fell[i], best[i], stale[i] = math.isfinite(best[i]), loss, 0
            else:
                stale[i] += 1
        if seen <= min(train, valid) or history.annealed(evaluation.before):
            continue
        checked += 1
        alone = stale[1] >= valid
        waited, limit = (stale[1], valid) if alone else (min(stale), train)
        if waited >= limit and all(fell):
            reason = (
                f"after {count(evaluation.before, 'training step')} {'the validation' if alone else 'neither'} loss"
                f" had {'not ' if alone else ''}improved for {waited} evaluations; the lowest validation loss was"
                f" {figure(best[1])}"
            )
            hits.append((reason, Evidence(waited, limit, evaluation.before, "EVAL", "loss")))
    if not checked:
        return found(
            "waiting", f"it waits for {min(train, valid) + 1} evaluations, {len(history.evaluations)} were made"
        )
    return judged(hits, checked, f"{checked} evaluations compared")


def loss_not_decreasing(history: History, parameters: Parameters) -> Finding:
    """Fires when the loss has not fallen by `diff_percent` since a step at least `num_steps` training steps before.

    A rise of up to `increase_threshold_percent` is allowed; the mode is EVAL where it has losses, else TRAIN. Chosen:
    in EVAL the mean of each evaluation is compared with that of the newest one at least `num_steps` training steps
    before. In TRAIN, used until there are two evaluations (`mode` TRAIN: always), the loss at a step is the mean of the
    LOSSES saved ones up to it, compared with the LOSSES before, and a difference of less than two standard errors is no
    change that can be judged: single batches differ by more than a training moves in ten steps. `mode` EVAL never looks
    at TRAIN. The end of a schedule is left out, where lr is too small to change anything. Besides, it fires when the
    last LOSSES training losses before the newest evaluation are DIVERGED times that of guessing: an lr far too large
    throws the loss so high at once that it only falls from there. That, or a loss that never fell by LEARNED, is a
    problem, one that has risen again at the end a warning; one that stood still, or rose for a time, is an information.
    """
    mode, apart, hits, checked = parameters["mode"], parameters["num_steps"], list[Hit](), 0
    rise, fall = parameters["increase_threshold_percent"], parameters["diff_percent"]

    def compare(then: int, before: float, step: int, now: float, mode: str, error: float = 0.0) -> None:
        nonlocal checked
        if history.annealed(step):
            return
        checked += 1
        change = 100 * (before - now) / abs(before) if before else 0.0
        if abs(before - now) < 2 * error or (-rise <= change < 0) or change >= fall:
            return
        fell = f"fell by {change:.3g} %, less than {fall:g} %"
        moved = fell if change >= 0 else f"rose by {-change:.3g} %, up to {rise:g} % is allowed"
        what = f"the {'validation' if mode == 'EVAL' else 'training'} loss {moved} ({figure(before)}, {figure(now)})"
        evidence = Evidence(change, fall if change >= 0 else -rise, step, mode, "loss")
        hits.append((f"between training steps {then} and {step} {what}", evidence))

    evaluations = [(e.before, e.valid.value) for e in history.evaluations]
    until = math.inf if mode == "TRAIN" or len(evaluations) < 2 else evaluations[1][0]
    losses = [point for point in history.losses if point[0] < until] if mode != "EVAL" else []
    compared = -math.inf
    for end in range(2 * LOSSES, len(losses) + 1):
        steps, values = np.array(losses[end - 2 * LOSSES : end]).T
        then, step = int(steps[LOSSES - 1]), int(steps[-1])
        if min(step - then, step - compared) >= apart:
            compared, both = step, values.reshape(2, LOSSES)
            error = math.sqrt(both.var(axis=1, ddof=1).sum() / LOSSES)
            compare(then, float(both[0].mean()), step, float(both[1].mean()), "TRAIN", error)
    for index, now in enumerate(evaluations if mode != "TRAIN" else ()):
        older = [point for point in evaluations[:index] if now[0] - point[0] >= apart]
        if older:
            compare(*older[-1], *now, "EVAL")
    end = evaluations[-1][0] if evaluations else 0
    newest = [loss for step, loss in history.losses if step < end][-LOSSES:]
    mean, guessing = sum(newest) / max(len(newest), 1), math.log(history.job.get("classes") or math.inf)
    if diverged := mean > DIVERGED * guessing:
        checked += 1
        reason = (
            f"the training has diverged: after {end} steps its loss was {figure(mean)}, and guessing has"
            f" {figure(guessing)}"
        )
        hits.insert(0, (reason, Evidence(mean, DIVERGED * guessing, end, "TRAIN", "loss")))
    if not checked:
        return found(
            "waiting", f"it needs losses at least {apart} steps apart: two evaluations, or {2 * LOSSES} saved steps"
        )
    trained = [loss for _, loss in history.losses]
    means = [sum(trained[at : at + LOSSES]) / LOSSES for at in range(0, len(trained) - LOSSES + 1, LOSSES)]
    validated = [loss for _, loss in evaluations]
    learned = any(min(seen) < (1 - LEARNED) * seen[0] for seen in (means, validated) if seen)
    severity: Severity = (
        "problem" if diverged or not learned else "warning" if _risen(validated or means) else "information"
    )
    return replace(judged(hits, checked, f"{checked} comparisons of losses"), severity=severity)


def class_imbalance(history: History, parameters: Parameters) -> Finding:
    """Fires when the largest class has more than `threshold_imbalance` times the images of the smallest.

    It also fires when more than `threshold_misprediction` of a class is mispredicted. Chosen: the training images of
    each class are counted, which are known (the documented rule counts the labels of the first `samples`). Since
    mispredictions are to be "as a result of the imbalance", only classes with less than half the images of the median
    class count; they are judged after each evaluation, in which LEAST images have to be of the class.
    """
    known: dict[str, int] = history.job.get("class_counts") or {}
    if not known:
        return found("waiting", "the images of each class are not known")
    names, counts = dict(enumerate(known)), dict(enumerate(known.values()))
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    least, most, limit = counts[small], counts[large], parameters["threshold_imbalance"]
    hits, checked, ratio = list[Hit](), 1, most / max(least, 1)
    if ratio > limit:
        reason = (
            f"class {names[large]} has {most} training images, class {names[small]} {least}: {ratio:.3g} times as many;"
            f" up to {limit:g} times is allowed"
        )
        hits.append((reason, Evidence(ratio, limit, None, "TRAIN", "labels")))
    half, limit = float(np.median(list(counts.values()))) / 2, parameters["threshold_misprediction"]
    for evaluation in history.evaluations:
        for label in sorted(n for n, seen in evaluation.labels.items() if seen >= LEAST and counts.get(n, 0) < half):
            checked += 1
            share = evaluation.missed[label] / evaluation.labels[label]
            if share > limit:
                reason = (
                    f"after {count(evaluation.before, 'training step')} {share:.0%} of class {names[label]}, which"
                    f" has only {counts[label]} training images, were mispredicted; up to {limit:.0%} is allowed"
                )
                hits.append((reason, Evidence(share, limit, evaluation.before, "EVAL", "predictions")))
    return judged(hits, checked, f"{len(counts)} classes with {least} to {most} training images")
