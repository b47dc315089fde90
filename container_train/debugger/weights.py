"""poor_weight_initialization."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule, number
from container_train.debugger.saved_steps import Step
from container_train.monitoring.findings import Evidence


class PoorWeightInitialization(Rule):
    """Fires when the first `steps` steps look as if weights had been started badly.

    PoorWeightInitialization in https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html names three
    checks: the ratio of the largest to the smallest variance across layers (above `threshold`), the smallest spread of
    gradients, 5th to 95th percentile (below `distribution_range`), and a loss that has not fallen for `patience` steps.
    Chosen:
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

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.pretrained = False
        self.seen = 0
        self.best = math.inf
        self.stale = 0
        self.without = 0

    def learn(self, job: Mapping[str, Any]) -> None:
        self.pretrained = bool((job.get("debug") or {}).get("pretrained"))

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
        values = [(name, step.values(name)) for name in step.names("relu_input")]
        variances = {
            name: float(np.var(v)) for name, v in values if v is not None and v.size > 1 and np.isfinite(v).all()
        }
        if len(variances) < 2:
            self.without += 1
            return
        self.checked += 1
        low, high = min(variances, key=variances.__getitem__), max(variances, key=variances.__getitem__)
        ratio = variances[high] / variances[low] if variances[low] > 0 else math.inf
        threshold = float(self.parameters["threshold"])
        if variances[high] > 0 and ratio > threshold:
            self.fire(
                Evidence(ratio, threshold, step.number, step.mode, high),
                f"at step {step.number} the variance of {high} ({number(variances[high])}) was {number(ratio)} times"
                f" that of {low} ({number(variances[low])}), allowed are {threshold:g} times",
            )

    def _gradients(self, step: Step) -> None:
        chosen = self._judged(step)
        values = [(name, step.values(name)) for name in chosen]
        spreads = {
            name: float(np.subtract(*np.percentile(v, (95, 5))))
            for name, v in values
            if v is not None and v.size > 1 and np.isfinite(v).all()
        }
        if not spreads:
            return
        self.checked += 1
        tensor = min(spreads, key=spreads.__getitem__)
        allowed, patience = float(self.parameters["distribution_range"]), int(self.parameters["patience"])
        if spreads[tensor] < allowed and self.stale >= patience:
            self.fire(
                Evidence(spreads[tensor], allowed, step.number, step.mode, tensor),
                f"at step {step.number} nine tenths of {tensor} lay within {number(spreads[tensor])}, less than"
                f" {number(allowed)}, and the loss had not fallen for {self.stale} steps",
            )

    def _judged(self, step: Step) -> list[str]:
        layers = set(step.names("layers"))
        gradients = [name for name in step.names("gradients") if name in layers]
        if not self.pretrained:
            return gradients
        return [name for name in gradients if name in set(step.names("last_layer"))]

    def missing(self) -> str:
        return "no gradients or inputs of ReLUs of the first steps were saved"

    def healthy(self) -> str:
        if self.pretrained:
            return f"the new layer's gradients in {self.seen} steps; pretrained layers were not started here"
        if self.without:
            return f"gradients in {self.seen} steps; there are no two ReLUs whose inputs could be compared"
        return f"inputs of ReLUs and gradients in {self.seen} steps"
