"""poor_weight_initialization."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule, number
from container_train.debugger.saved_steps import Step, Values


class PoorWeightInitialization(Rule):
    """Fires when the first `steps` steps look as if weights had been started badly.

    The document names three checks: the ratio of the largest to the smallest variance across layers (above
    `threshold`), the smallest spread of gradients, 5th to 95th percentile (below `distribution_range`), and a loss that
    has not fallen for `patience` steps. Chosen:
    * The variances are those of the activation inputs, as the overview says. The parameter speaks of weights, whose
      variance differs from layer to layer by design: well-started layers have about 2 / inputs.
    * A spread below 0.001 alone is normal for a large network, and a few steps without a lower loss are normal for a
      small lr: the two fire together only.
    * Pretrained weights were not started here: of such a network only the new layer's gradient is judged.
    * A step is a saved one; the hook saves the first ten of a training.
    """

    name = "poor_weight_initialization"
    advice = (
        "Start convolutions and linear layers in front of ReLUs by He's rule (torch.nn.init.kaiming_normal_), others by"
        " Xavier's, biases at 0; put normalisation between layers; never start all weights of a layer alike. Or take"
        " pretrained weights."
    )
    missing = "no gradients or inputs of ReLUs of the first steps were saved"
    healthy = "inputs of ReLUs and gradients in {seen} steps"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.pretrained = False
        self.seen = self.stale = 0
        self.best = math.inf

    def learn(self, job: Mapping[str, Any]) -> None:
        self.pretrained = bool((job.get("debug") or {}).get("pretrained"))
        if self.pretrained:
            self.healthy = "the new layer's gradients in {seen} steps; pretrained layers were not started here"

    def see(self, step: Step) -> None:
        if step.mode != "TRAIN" or self.seen >= int(self.parameters["steps"]) or self.nothing:
            return
        if self.seen == 0 and step.number > 0:
            self.nothing = f"the first saved step is {step.number}: how the weights were at the start is not known"
            return
        self.seen += 1
        loss = step.loss()
        if loss is not None:
            self.best, self.stale = (loss, 0) if loss < self.best else (self.best, self.stale + 1)
        if not self.pretrained:
            self._variances(step)
        self._gradients(step)

    def _variances(self, step: Step) -> None:
        variances = _each(step, step.names("relu_input"), np.var)
        if len(variances) < 2:
            self.healthy = "gradients in {seen} steps; there are no two ReLUs whose inputs could be compared"
            return
        self.checked += 1
        low, high = min(variances, key=variances.__getitem__), max(variances, key=variances.__getitem__)
        ratio = variances[high] / variances[low] if variances[low] > 0 else math.inf
        threshold = float(self.parameters["threshold"])
        if variances[high] > 0 and ratio > threshold:
            reason = (
                f"at step {step.number} the variance of {high} ({number(variances[high])}) was {number(ratio)} times"
                f" that of {low} ({number(variances[low])}); up to {threshold:g} times is allowed"
            )
            self.fire(reason, ratio, threshold, step.number, step.mode, high)

    def _gradients(self, step: Step) -> None:
        known = set(step.names("layers")) & set(step.names("last_layer" if self.pretrained else "layers"))
        chosen = [name for name in step.gradients() if name in known]
        spreads = _each(step, chosen, lambda values: np.subtract(*np.percentile(values, (95, 5))))
        if not spreads:
            return
        self.checked += 1
        tensor = min(spreads, key=spreads.__getitem__)
        allowed, patience = float(self.parameters["distribution_range"]), int(self.parameters["patience"])
        if spreads[tensor] < allowed and self.stale >= patience:
            reason = (
                f"at step {step.number} nine tenths of {tensor} lay within {number(spreads[tensor])}, less than"
                f" {number(allowed)}, and the loss had not fallen for {self.stale} steps"
            )
            self.fire(reason, spreads[tensor], allowed, step.number, step.mode, tensor)


def _each(step: Step, names: Iterable[str], of: Callable[[Values], Any]) -> dict[str, float]:
    """A figure of each tensor that was saved and is finite."""
    values = ((name, step.values(name)) for name in names)
    return {name: float(of(v)) for name, v in values if v is not None and v.size > 1 and np.isfinite(v).all()}
