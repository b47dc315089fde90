"""All rules of the debugger over the steps of a training, and the figures of tensors.json."""

import logging
import math
import re
from collections.abc import Iterable, Mapping
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


class Judge:
    """Shows every step to every rule. A rule that raises is out, with the reason; the others go on."""

    def __init__(self, job: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> None:
        self.rules = [rule(parameters.get(rule.name, {})) for rule in RULES]
        self.figures = Figures()
        self.steps = 0
        self.off = ""
        self.learn(job)

    def learn(self, job: Mapping[str, Any]) -> None:
        """Take what became known of the job since: facts of what is trained come after its start."""
        debug = job.get("debug") or {}
        self.off = ""
        if debug.get("state") in ("off", "failed"):
            self.off = f"no tensors are saved: {debug.get('reason') or debug['state']}"
        for rule in self.rules:
            self._try(rule, lambda rule=rule: rule.learn(job))

    def see(self, steps: Iterable[Step]) -> int:
        """Returns how many steps there were."""
        before = self.steps
        for step in steps:
            self.steps += 1
            self.figures.see(step)
            for rule in self.rules:
                self._try(rule, lambda rule=rule, step=step: rule.see(step))
        return self.steps - before

    def findings(self, final: bool = False) -> list[Finding]:
        if final:
            for rule in self.rules:
                self._try(rule, rule.conclude)
        result = [rule.finding(final) for rule in self.rules]
        for finding in result:
            if self.off and finding.status in ("waiting", "not_applicable"):
                finding.status, finding.reason = "not_applicable", self.off
        return result

    def _try(self, rule: Rule, look: Any) -> None:
        if rule.failed:
            return
        try:
            look()
        except Exception as error:
            rule.failed = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("rule %s: %s", rule.name, rule.failed, exc_info=True)


class Curve:
    """Points in the order of their steps, thinned to at most POINTS."""

    def __init__(self) -> None:
        self.points: list[tuple[float | None, ...]] = []
        self.every = self.count = 1

    def add(self, *point: float | None) -> None:
        self.count += 1
        if self.count % self.every:
            return
        self.points.append(tuple(None if v is None or not math.isfinite(v) else float(f"{v:.6g}") for v in point))
        if len(self.points) > POINTS:
            self.points, self.every = self.points[::2], 2 * self.every

    def columns(self, *names: str) -> dict[str, list[float | int | None]]:
        columns = {name: [point[i] for point in self.points] for i, name in enumerate(names)}
        return {n: [int(v) for v in vs if v is not None] if n == "step" else vs for n, vs in columns.items()}


class Figures:
    """What tensors.json holds: the gradients of the layers, and the losses. Not finite: null."""

    def __init__(self) -> None:
        self.gradients: dict[str, Curve] = {}
        self.losses = {"train": Curve(), "valid": Curve()}
        self.pass_: tuple[int, list[float]] = (-1, [])

    def see(self, step: Step) -> None:
        loss = step.loss()
        if step.mode == "EVAL":
            if step.before != self.pass_[0]:
                self._close()
                self.pass_ = (step.before, [])
            if loss is not None:
                self.pass_[1].append(loss)
            return
        self._close()
        if loss is not None:
            self.losses["train"].add(step.number, loss)
        layers = set(step.names("layers"))
        for tensor in step.names("gradients"):
            if tensor in layers or not layers:
                curve = self.gradients.setdefault(layer(tensor), Curve())
                curve.add(step.number, step.reduction(tensor, "l2"), step.mean_absolute(tensor))

    def _close(self) -> None:
        before, losses = self.pass_
        if losses:
            self.losses["valid"].add(before, math.fsum(losses) / len(losses))
        self.pass_ = (-1, [])

    def content(self, final: bool = False) -> dict[str, Any]:
        if final:
            self._close()
        return {
            "gradients": {n: curve.columns("step", "norm", "abs_mean") for n, curve in self.gradients.items()},
            "losses": {name: curve.columns("step", "value") for name, curve in self.losses.items()},
            "layers": len(self.gradients),
        }


def layer(tensor: str) -> str:
    """`gradient/GraphModule_layer4.0.conv1.weight` -> `layer4.0.conv1`."""
    return re.sub(r"^gradient/[^_]*_", "", tensor).removesuffix(".weight")
