"""class_imbalance."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule
from container_train.debugger.saved_steps import Step
from container_train.monitoring.findings import Evidence

LEAST = 5
"""Pictures of a class that have to be seen before its mispredictions are a share."""


class ClassImbalance(Rule):
    """Fires when the largest class has more than `threshold_imbalance` times the pictures of the smallest.

    ClassImbalance in https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html counts the labels
    that go by, once `samples` were seen. Here the training pictures of each class are known and taken; the labels only
    where they are not. It also fires when more than `threshold_misprediction` of a class is mispredicted. Chosen: since
    that is to be "as a result of the imbalance", only classes with less than half the pictures of the median class
    count; they are judged after each evaluation, of whose saved batches LEAST pictures have to be of the class.
    """

    name = "class_imbalance"
    advice = (
        "Add pictures of the small classes, or leave some of the large ones out; look at the accuracy per class in"
        " report.html, the mean over all pictures hides small classes."
    )

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.names: list[str] = []
        self.counts: dict[int, int] = {}
        self.known = False
        self.judged = False
        self.evaluation = -1
        self.labels: Counter[int] = Counter()
        self.missed: Counter[int] = Counter()
        self.seen = 0

    def learn(self, job: Mapping[str, Any]) -> None:
        counts = job.get("class_counts") or {}
        if counts and not self.known:
            self.known, self.names = True, list(counts)
            self.counts = {index: int(count) for index, count in enumerate(counts.values())}
            self._imbalance()

    def see(self, step: Step) -> None:
        labels = self._integers(step, "labels")
        if labels is None:
            return
        if step.mode == "TRAIN":
            self._close()
            if not self.known:
                self._count(labels, step)
            return
        if step.before != self.evaluation:
            self._close()
            self.evaluation = step.before
        predictions = self._integers(step, "predictions")
        if predictions is not None and len(predictions) == len(labels):
            self.labels.update(labels)
            self.missed.update(label for label, guess in zip(labels, predictions, strict=True) if label != guess)

    def conclude(self) -> None:
        self._close()

    def _integers(self, step: Step, name: str) -> list[int] | None:
        values = step.values(name) if name in step.names(name) else None
        return None if values is None else [int(value) for value in values.reshape(-1)]

    def _count(self, labels: list[int], step: Step) -> None:
        for label in labels:
            self.counts[label] = self.counts.get(label, 0) + 1
        self.seen += len(labels)
        if self.seen >= int(self.parameters["samples"]) and not self.judged:
            self._imbalance(step.number)

    def _imbalance(self, step: int | None = None) -> None:
        self.checked, self.judged = self.checked + 1, True
        small, large = min(self.counts, key=self.counts.__getitem__), max(self.counts, key=self.counts.__getitem__)
        allowed = float(self.parameters["threshold_imbalance"])
        ratio = self.counts[large] / max(self.counts[small], 1)
        if ratio > allowed:
            what = "labels seen" if step is not None else "training pictures"
            self.fire(
                Evidence(ratio, allowed, step, "TRAIN", "labels"),
                f"class {self._label(large)} has {self.counts[large]} {what}, class {self._label(small)}"
                f" {self.counts[small]}: {ratio:.3g} times as many, allowed are {allowed:g} times",
            )

    def _close(self) -> None:
        """An evaluation is complete: look at the classes that have few training pictures."""
        labels, missed, self.labels, self.missed = self.labels, self.missed, Counter[int](), Counter[int]()
        if not labels or not self.judged:
            return
        half = float(np.median(list(self.counts.values()))) / 2
        allowed = float(self.parameters["threshold_misprediction"])
        for label in sorted(labels):
            if self.counts.get(label, 0) >= half or labels[label] < LEAST:
                continue
            self.checked += 1
            share = missed[label] / labels[label]
            if share > allowed:
                self.fire(
                    Evidence(share, allowed, self.evaluation, "EVAL", "predictions"),
                    f"after {self.evaluation} training steps {share:.0%} of class {self._label(label)}, which has only"
                    f" {self.counts.get(label, 0)} training pictures, were mispredicted, allowed are {allowed:.0%}",
                )

    def _label(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else str(index)

    def missing(self) -> str:
        return f"the pictures of each class are not known, and fewer than {self.parameters['samples']} labels were seen"

    def healthy(self) -> str:
        most, least = max(self.counts.values()), min(self.counts.values())
        return f"{len(self.counts)} classes with {least} to {most} training pictures"
