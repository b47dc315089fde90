"""class_imbalance."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule
from container_train.debugger.saved_steps import Step

LEAST = 5
"""Images of a class that have to be seen before its mispredictions are a share."""


class ClassImbalance(Rule):
    """Fires when the largest class has more than `threshold_imbalance` times the images of the smallest.

    The documented rule counts the labels that go by, once `samples` were seen. Here the training images of each class
    are known and taken; the labels only where they are not. It also fires when more than `threshold_misprediction` of a
    class is mispredicted. Chosen: since that is to be "as a result of the imbalance", only classes with less than half
    the images of the median class count; they are judged after each evaluation, of whose saved batches LEAST images
    have to be of the class.
    """

    name = "class_imbalance"
    advice = (
        "Add images of the small classes, or leave some of the large ones out; look at the accuracy per class in"
        " report.html, the mean over all images hides small classes."
    )
    missing = "the images of each class are not known, and fewer than {parameters[samples]} labels were seen"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.names: list[str] = []
        self.counts: Counter[int] = Counter()  # training images of each class, or labels seen
        self.judged = False
        self.evaluation = -1
        self.labels: Counter[int] = Counter()
        self.missed: Counter[int] = Counter()

    def learn(self, job: Mapping[str, Any]) -> None:
        counts = job.get("class_counts") or {}
        if counts and not self.names:
            self.names = list(counts)
            self.counts = Counter({index: int(count) for index, count in enumerate(counts.values())})
            self._imbalance("training images")

    def see(self, step: Step) -> None:
        labels = self._integers(step, "labels")
        if labels is None:
            return
        if step.mode == "TRAIN" or step.before != self.evaluation:
            self.conclude()
        if step.mode == "TRAIN":
            self.counts.update(labels if not self.names else ())
            if not self.judged and self.counts.total() >= int(self.parameters["samples"]):
                self._imbalance("labels seen", step.number)
            return
        self.evaluation = step.before
        predictions = self._integers(step, "predictions")
        if predictions is not None and len(predictions) == len(labels):
            self.labels.update(labels)
            self.missed.update(label for label, guess in zip(labels, predictions, strict=True) if label != guess)

    def _integers(self, step: Step, name: str) -> list[int] | None:
        values = step.values(name)
        return None if values is None else [int(value) for value in values.reshape(-1)]

    def _imbalance(self, what: str, step: int | None = None) -> None:
        self.checked, self.judged = self.checked + 1, True
        small, large = min(self.counts, key=self.counts.__getitem__), max(self.counts, key=self.counts.__getitem__)
        least, most = self.counts[small], self.counts[large]
        self.healthy = f"{len(self.counts)} classes with {least} to {most} training images"
        ratio, allowed = most / max(least, 1), float(self.parameters["threshold_imbalance"])
        if ratio > allowed:
            reason = (
                f"class {self._label(large)} has {most} {what}, class {self._label(small)} {least}: {ratio:.3g}"
                f" times as many; up to {allowed:g} times are allowed"
            )
            self.fire(reason, ratio, allowed, step, "TRAIN", "labels")

    def conclude(self) -> None:
        """An evaluation is complete: look at the classes that have few training images."""
        labels, missed, self.labels, self.missed = self.labels, self.missed, Counter[int](), Counter[int]()
        if not labels or not self.judged:
            return
        half = float(np.median(list(self.counts.values()))) / 2
        allowed = float(self.parameters["threshold_misprediction"])
        for label in sorted(label for label in labels if self.counts[label] < half and labels[label] >= LEAST):
            self.checked += 1
            share = missed[label] / labels[label]
            if share > allowed:
                reason = (
                    f"after {self.evaluation} training steps {share:.0%} of class {self._label(label)}, which has only"
                    f" {self.counts[label]} training images, were mispredicted; up to {allowed:.0%} are allowed"
                )
                self.fire(reason, share, allowed, self.evaluation, "EVAL", "predictions")

    def _label(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else str(index)
