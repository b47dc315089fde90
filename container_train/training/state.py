"""The state of a training, and what is measured in it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from container_train.training.classification import macro_f1


@dataclass
class RunningMetrics:
    """Sums over the images of an epoch so far."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: float, correct: int, seen: int) -> None:
        self.loss += loss * seen
        self.correct += correct
        self.seen += seen


@dataclass
class Evaluation(RunningMetrics):
    """Of a whole split, with the numbers by class: correct, of images, of predictions; each float64 (classes,)."""

    by_class: torch.Tensor = field(default_factory=lambda: torch.zeros(3, 0))

    @property
    def macro_f1(self) -> float:
        return macro_f1(*self.by_class.numpy())


@dataclass
class State:
    """The state of a training. `epoch` counts from 0 through all stages and is the current one.

    `step` counts its finished steps.
    """

    epoch: int = 0
    step: int = 0
    tally: RunningMetrics = field(default_factory=RunningMetrics)
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)  # epoch, score, accuracy, loss, model
    stopped_by: str = ""  # the rule, if one ended the training
