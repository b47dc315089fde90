"""The input of the rules: figures of all saved steps of a training."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from container_train.debugger.saved_steps import Step, Values

ANNEALED = 0.8  # share of a cosine after which it is below a tenth of where it began
WINDOW = 5
"""Saved training steps over which the activity of a ReLU's unit is averaged: a batch is too few images for one."""


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
    """A pass over the validation images. `before`: training steps until then; `train`: their losses since the pass
    before; `labels` and `missed`: images of each class, and those of them that were mispredicted."""

    before: int
    train: Mean
    valid: Mean = field(default_factory=Mean)
    labels: Counter[int] = field(default_factory=Counter)
    missed: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class FirstStep:
    """One of the first saved steps: variances of inputs of ReLUs, and spreads (5th to 95th percentile) of gradients of
    layers, those of the last one also in `last`."""

    number: int
    loss: float | None
    variances: Mapping[str, float]
    spreads: Mapping[str, float]
    last: Mapping[str, float]


class History:
    """`first_steps`: number of FirstSteps to keep; `inactive`: % of the time below which a ReLU counts as dead."""

    def __init__(self, first_steps: int, inactive: float) -> None:
        self.first_steps, self.inactive = first_steps, inactive
        self.job: Mapping[str, Any] = {}
        self.steps = 0
        self.losses: list[tuple[int, float]] = []  # of training steps, where they are finite
        self.evaluations: list[Evaluation] = []  # those that are complete
        self.gradients: list[tuple[int, str, float]] = []  # training step, tensor, mean absolute value
        self.first: list[FirstStep] = []
        self.dead: list[tuple[int, str, int, float]] = []  # training step, ReLU, its units, % of them that are dead
        self.relus: dict[str, deque[Values]] = {}
        self.checked = 0  # tensors that were looked at for values that are not finite
        self.exploded: list[tuple[str, int, str, float]] = []  # mode, step, tensor, NaN or infinity
        self._train = self._recent = Mean()
        self._open: Evaluation | None = None

    def add(self, step: Step) -> None:
        self.steps += 1
        self._finite(step)
        loss, labels = step.loss(), step.integers("labels")
        if self._open is not None and (step.mode == "TRAIN" or step.before != self._open.before):
            self.conclude()
        if step.mode == "EVAL":
            self._evaluation(step, loss, labels)
            return
        if loss is not None and math.isfinite(loss):  # what is not finite is exploding_tensor's
            self.losses.append((step.number, loss))
            self._train.add(loss, max(len(labels), 1))
        means = ((name, step.reduction(name, "mean", absolute=True)) for name in step.gradients())
        self.gradients += [(step.number, name, mean) for name, mean in means if mean is not None]
        if len(self.first) < self.first_steps:
            spreads = _each(step, step.names("layers"), step.gradients(), _spread)
            last = {name: spread for name, spread in spreads.items() if name in step.names("last_layer")}
            inputs = step.names("relu_input")
            self.first.append(FirstStep(step.number, loss, _each(step, inputs, inputs, np.var), spreads, last))
        self._activity(step)

    def setting(self, name: str) -> Any:
        """The value of a hyperparameter of the job; None if it has none of this name."""
        return (self.job.get("hyperparameters") or {}).get(name)

    def annealed(self, step: int) -> bool:
        """Tell whether the schedule has brought lr below a tenth of its highest: what is learned then is little.

        Steps are those of the last stage, which alone is watched, as `epochs` are.
        """
        epochs, warmup = self.setting("epochs") or 0, self.setting("warmup-epochs") or 0
        fallen = (self.job.get("steps_per_epoch") or 0) * (warmup + ANNEALED * (epochs - warmup))
        return self.setting("lr-schedule") == "cosine" and step > fallen > 0

    def conclude(self) -> None:
        """The evaluation under way is complete."""
        if self._open is not None:
            self.evaluations.append(self._open)
            self._open = None

    def _evaluation(self, step: Step, loss: float | None, labels: list[int]) -> None:
        if self._open is None:
            # Where no step was saved since the last evaluation, the training losses before it still hold.
            self._recent, self._train = self._train if self._train.images else self._recent, Mean()
            self._open = Evaluation(step.before, self._recent)
        if loss is not None and math.isfinite(loss):
            self._open.valid.add(loss, max(len(labels), 1))
        predictions = step.integers("predictions")
        if len(predictions) == len(labels):
            self._open.labels.update(labels)
            self._open.missed.update(a for a, b in zip(labels, predictions, strict=True) if a != b)

    def _finite(self, step: Step) -> None:
        """The mean over a whole tensor (of gradients that of |x|) is NaN or infinite if one value is.

        With a loss scale gradients are left out: scaling up until they overflow is how it works.
        """
        for collection in ("losses", "gradients", "weights", "biases", "relu_input"):
            gradients = collection == "gradients"
            for tensor in step.names(collection) if not (gradients and "loss_scale" in step.tensors) else ():
                value = step.reduction(tensor, "mean", absolute=gradients)
                self.checked += value is not None
                if value is not None and not math.isfinite(value):
                    self.exploded.append((step.mode, step.number, tensor, value))

    def _activity(self, step: Step) -> None:
        for tensor in step.names("relu_activity"):
            values = step.values(tensor)
            if values is None:
                continue
            window = self.relus.setdefault(tensor, deque(maxlen=WINDOW))
            window.append(values)
            if len(window) == WINDOW:
                dead = 100 * float((100 * np.mean(window, axis=0) < self.inactive).mean())
                self.dead.append((step.number, tensor.replace("_activity_", "_input_"), values.size, dead))


def _spread(values: Values) -> Any:
    return np.subtract(*np.percentile(values, (95, 5)))


def _each(step: Step, wanted: Iterable[str], names: Iterable[str], of: Any) -> dict[str, float]:
    """A figure of each of the tensors that were wanted and saved, and are finite."""
    known = set(wanted)
    values = ((name, step.values(name)) for name in names if name in known)
    return {name: float(of(v)) for name, v in values if v is not None and v.size > 1 and np.isfinite(v).all()}
