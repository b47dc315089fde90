"""overfit, overtraining and loss_not_decreasing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule, number
from container_train.debugger.saved_steps import Step


@dataclass
class Mean:
    """The mean loss of the images of all steps that were added: the last batch of an epoch may be a small one."""

    total: float = 0.0
    images: int = 0

    def add(self, loss: float, images: int) -> None:
        self.total += loss * images
        self.images += images

    @property
    def value(self) -> float:
        return self.total / self.images if self.images else math.nan


@dataclass
class Evaluation:
    """One pass over the validation images. `before` are the training steps made until then, `train` their losses."""

    before: int
    train: Mean
    valid: Mean = field(default_factory=Mean)


class LossRule(Rule):
    """Gathers the losses of each evaluation, and of the training since the one before; `judge` gets it once complete.

    The documents speak of steps. A step of an evaluation is one batch, and the next is another batch with the very same
    weights: compared with each other, they tell nothing. Chosen: a whole evaluation is one step of its mode.
    """

    missing = "no losses of the training and of an evaluation were saved, both of which it compares"
    healthy = "{checked} evaluations compared"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.train = self.recent = Mean()
        self.open: Evaluation | None = None
        self.evaluations = 0

    def see(self, step: Step) -> None:
        if self.open is not None and (step.mode == "TRAIN" or step.before != self.open.before):
            self.conclude()
        loss = step.loss()
        if loss is None or not math.isfinite(loss):
            return  # what is not finite is exploding_tensor's
        if step.mode == "TRAIN":
            self.train.add(loss, step.images())
        elif step.mode == "EVAL":
            if self.open is None:
                # Where no step was saved since the last evaluation, the training losses before it still hold.
                self.recent, self.train = self.train if self.train.images else self.recent, Mean()
                self.open = Evaluation(step.before, self.recent)
            self.open.valid.add(loss, step.images())

    def conclude(self) -> None:
        if self.open is not None:
            evaluation, self.open = self.open, None
            self.evaluations += 1
            self.judge(evaluation)

    def judge(self, evaluation: Evaluation) -> None:
        raise NotImplementedError


class Overfit(LossRule):
    """Fires when (mean validation loss - mean training loss) / mean training loss is above `ratio_threshold`.

    For `patience` steps, from training step `start_step` on. Chosen: a comparison is made at each evaluation, with the
    mean over its saved batches and over the training steps saved since the evaluation before; `patience` counts
    evaluations one after another.
    """

    name = "overfit"
    advice = (
        "Stop earlier (patience, or on-rule stop: the best epoch is kept), augment the images (augment crop), set"
        " weight-decay, train fewer layers (freeze-until), or add images. A small gap is normal where the training"
        " loss is close to 0."
    )
    over = 0

    def judge(self, evaluation: Evaluation) -> None:
        if evaluation.before < int(self.parameters["start_step"]) or not evaluation.train.images:
            return
        threshold = float(self.parameters["ratio_threshold"])
        train, valid = evaluation.train.value, evaluation.valid.value
        ratio = (valid - train) / train if train > 0 else math.inf if valid > 0 else 0.0
        self.checked += 1
        self.over = self.over + 1 if ratio > threshold else 0
        if self.over >= max(1, int(self.parameters["patience"])):
            reason = (
                f"after {evaluation.before} training steps the validation loss was {number(valid)}, the training loss"
                f" {number(train)}: {ratio:.0%} more, up to {threshold:.0%} is allowed"
            )
            self.fire(reason, ratio, threshold, evaluation.before, "EVAL")


class Overtraining(LossRule):
    """Fires when the losses, having fallen first, find no new optimum any more.

    `patience_train` and `patience_validation` are the steps to wait until a loss is considered not to be improving,
    `delta` is how far it has to fall for a new optimum. How the two work together is left open. Chosen: it fires when
    the validation loss has not improved for `patience_validation` evaluations, or neither loss for `patience_train`.
    Losses that never improved are loss_not_decreasing's, not over-training.
    """

    name = "overtraining"
    advice = (
        "More epochs bring nothing: set epochs to where the validation loss was lowest, or patience so that the job"
        " ends there by itself. The exported model is that of the best epoch anyway."
    )
    missing = "it waits for more evaluations than the shorter patience, {evaluations} were made"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.best = {"train": math.inf, "valid": math.inf}
        self.stale = {"train": 0, "valid": 0}
        self.fell = {"train": False, "valid": False}

    def judge(self, evaluation: Evaluation) -> None:
        if not evaluation.train.images:
            return
        for key, loss in (("train", evaluation.train.value), ("valid", evaluation.valid.value)):
            if loss < self.best[key] - float(self.parameters["delta"]):
                self.fell[key] = math.isfinite(self.best[key])
                self.best[key], self.stale[key] = loss, 0
            else:
                self.stale[key] += 1
        train, valid = int(self.parameters["patience_train"]), int(self.parameters["patience_validation"])
        if self.evaluations <= min(train, valid):
            return
        self.checked += 1
        alone = self.stale["valid"] >= valid
        waited, allowed = (self.stale["valid"], valid) if alone else (min(self.stale.values()), train)
        if waited >= allowed and all(self.fell.values()):
            reason = (
                f"after {evaluation.before} training steps {'the validation loss' if alone else 'neither loss'} had"
                f" {'not ' if alone else ''}improved for {waited} evaluations; the lowest validation loss was"
                f" {number(self.best['valid'])}"
            )
            self.fire(reason, waited, allowed, evaluation.before, "EVAL")


WINDOW = 10
"""Saved training losses whose mean stands for the loss at a step."""


class LossNotDecreasing(LossRule):
    """Fires when the loss has not fallen by `diff_percent` since a step at least `num_steps` training steps before.

    A rise of up to `increase_threshold_percent` is allowed; the mode is EVAL where it has losses, else TRAIN. Chosen:
    in EVAL the mean of each evaluation is compared with that of the newest one at least `num_steps` training steps
    before. In TRAIN, used until there are two evaluations (`mode` TRAIN: always), the loss at a step is the mean of the
    WINDOW saved ones up to it, held against the WINDOW before, and a difference of less than two standard errors is no
    change that can be judged: single batches differ by more than a training moves in ten steps. `mode` EVAL never looks
    at TRAIN.
    """

    name = "loss_not_decreasing"
    advice = (
        "Change lr: ten times lower where the loss jumps about or rises, higher where it stands still from the first"
        " step on. Then look at the data: labels that do not belong to their images, images all alike. Late in a"
        " training it says that the training is done: fewer epochs, or patience."
    )
    missing = f"it needs losses at least {{apart}} steps apart: two evaluations, or {2 * WINDOW} saved steps"
    healthy = "{checked} comparisons of losses"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.mode, self.apart = str(self.parameters["mode"]).upper(), int(self.parameters["num_steps"])
        self.history: list[tuple[int, float]] = []
        self.window: list[tuple[int, float]] = []
        self.compared = -math.inf

    def see(self, step: Step) -> None:
        super().see(step)
        if step.mode != "TRAIN" or self.mode == "EVAL" or (self.mode != "TRAIN" and self.evaluations >= 2):
            return
        loss = step.loss()
        if loss is None or not math.isfinite(loss):
            return
        self.window = [*self.window, (step.number, loss)][-2 * WINDOW :]
        steps, losses = np.array(self.window).T
        if len(losses) < 2 * WINDOW or min(steps[-1] - steps[WINDOW - 1], step.number - self.compared) < self.apart:
            return
        self.compared = step.number
        both = losses.reshape(2, WINDOW)
        error = math.sqrt(both.var(axis=1, ddof=1).sum() / WINDOW)
        self._compare(int(steps[WINDOW - 1]), float(both[0].mean()), step.number, float(both[1].mean()), "TRAIN", error)

    def judge(self, evaluation: Evaluation) -> None:
        if self.mode == "TRAIN":
            return
        now = (evaluation.before, evaluation.valid.value)
        older = [point for point in self.history if now[0] - point[0] >= self.apart]
        self.history.append(now)
        if older:
            self._compare(*older[-1], *now, "EVAL", 0.0)

    def _compare(self, then: int, before: float, step: int, now: float, mode: str, error: float) -> None:
        self.checked += 1
        change = 100 * (before - now) / abs(before) if before else 0.0
        rise, fall = float(self.parameters["increase_threshold_percent"]), float(self.parameters["diff_percent"])
        if abs(before - now) < 2 * error or (-rise <= change < 0) or change >= fall:
            return
        moved = (
            f"rose by {-change:.3g} %, up to {rise:g} % is allowed"
            if change < 0
            else f"fell by {change:.3g} %, less than {fall:g} %"
        )
        what = "validation" if mode == "EVAL" else "training"
        reason = f"between training steps {then} and {step} the {what} loss {moved} ({number(before)}, {number(now)})"
        self.fire(reason, change, fall if change >= 0 else -rise, step, mode)
