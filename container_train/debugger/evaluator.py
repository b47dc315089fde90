"""All rules of the debugger over the steps of a training, and the figures of tensors.json."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from typing import Any

from container_train.debugger.activations import DeadRelu
from container_train.debugger.class_imbalance import ClassImbalance
from container_train.debugger.gradients import ExplodingTensor, VanishingGradient
from container_train.debugger.losses import LossNotDecreasing, Overfit, Overtraining
from container_train.debugger.rule import Rule
from container_train.debugger.saved_steps import Step
from container_train.debugger.weights import PoorWeightInitialization
from container_train.monitoring.findings import Finding

log = logging.getLogger(__name__)

RULES: tuple[type[Rule], ...] = (
    VanishingGradient, ExplodingTensor, Overfit, Overtraining, LossNotDecreasing, PoorWeightInitialization, DeadRelu,
    ClassImbalance,
)  # fmt: skip
POINTS = 500
"""Points of a curve in tensors.json; of more, every second one is dropped."""


class RuleEvaluator:
    """Shows every step to every rule. A rule that raises is out, with the reason; the others go on."""

    def __init__(self, job: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> None:
        self.rules = [rule(parameters.get(rule.name, {})) for rule in RULES]
        self.figures = Figures()
        self.steps = 0
        self.learn(job)

    def learn(self, job: Mapping[str, Any]) -> None:
        """Take what became known of the job since: facts of what is trained come after its start."""
        debug = job.get("debug") or {}
        off = debug.get("state") in ("off", "failed")
        self.off = f"no tensors are saved: {debug.get('reason') or debug['state']}" if off else ""
        self._each(lambda rule: rule.learn(job))

    def see(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.steps += 1
            self.figures.see(step)
            self._each(methodcaller("see", step))

    def findings(self, final: bool = False) -> list[Finding]:
        if final:
            self._each(lambda rule: rule.conclude())
        result = [rule.finding(final) for rule in self.rules]
        for finding in result:
            if self.off and finding.status in ("waiting", "not_applicable"):
                finding.status, finding.reason = "not_applicable", self.off
        return result

    def _each(self, look: Callable[[Rule], None]) -> None:
        for rule in self.rules:
            if rule.failed:
                continue
            try:
                look(rule)
            except Exception as error:
                rule.failed = f"{type(error).__name__}: {error}".splitlines()[0]
                log.warning("rule %s: %s", rule.name, rule.failed, exc_info=True)


class Curve:
    """`value` over the steps, in their order, thinned to at most POINTS. Not finite: null."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float | None]] = []
        self.every = self.count = 1

    def add(self, step: int, value: float | None) -> None:
        self.count += 1
        if self.count % self.every:
            return
        self.points.append((step, None if value is None or not math.isfinite(value) else float(f"{value:.6g}")))
        if len(self.points) > POINTS:
            self.points, self.every = self.points[::2], 2 * self.every

    def columns(self, value: str) -> dict[str, list[Any]]:
        return {"step": [step for step, _ in self.points], value: [value for _, value in self.points]}


class Figures:
    """The content of tensors.json: the norms of the layers' gradients, and the losses of the training steps."""

    def __init__(self) -> None:
        self.gradients: dict[str, Curve] = {}
        self.losses = Curve()

    def see(self, step: Step) -> None:
        if step.mode != "TRAIN":
            return
        if (loss := step.loss()) is not None:
            self.losses.add(step.number, loss)
        for tensor in step.gradients():
            self.gradients.setdefault(layer(tensor), Curve()).add(step.number, step.reduction(tensor, "l2"))

    def content(self) -> dict[str, Any]:
        return {
            "gradients": {name: curve.columns("norm") for name, curve in self.gradients.items()},
            "losses": {"train": self.losses.columns("value")},
        }


def layer(tensor: str) -> str:
    """`gradient/GraphModule_layer4.0.conv1.weight` -> `layer4.0.conv1`."""
    return re.sub(r"^gradient/[^_]*_", "", tensor).removesuffix(".weight")
