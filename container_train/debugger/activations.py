"""dead_relu."""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.debugger.rule import Rule
from container_train.debugger.saved_steps import Step, Values

WINDOW = 5
"""Saved training steps over which the activity of a unit is averaged: a batch is too few images for one feature."""


class DeadRelu(Rule):
    """Fires when more than `threshold_layer` percent of a layer's ReLUs are dead.

    One is dead that is active less than `threshold_inactivity` percent. The document leaves open what one ReLU is, and
    over what it is active. Chosen: a channel of a convolution's output, or a feature of a linear layer's; it is active
    at the share of images and positions where its input is positive, over WINDOW saved training steps. The hook counts
    that over the inputs, of large ones over half a million of them. A ReLU that a network calls as a function is not
    seen.
    """

    name = "dead_relu"
    advice = (
        "Lower lr: one step too large is what usually kills them, and they do not come back. Start again from a"
        " checkpoint before; use LeakyReLU or GELU, normalisation before the ReLU, biases that start at 0."
    )
    missing = "what is trained has no ReLU of its own (one that is called as a function is not seen)"
    healthy = "{layers} ReLU layers, looked at {checked} times"
    layers = 0

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.activity: dict[str, deque[Values]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def see(self, step: Step) -> None:
        inactive, allowed = float(self.parameters["threshold_inactivity"]), float(self.parameters["threshold_layer"])
        for tensor in step.names("relu_activity") if step.mode == "TRAIN" else ():
            values, window = step.values(tensor), self.activity[tensor]
            if values is None:
                continue
            window.append(values)
            self.layers, self.missing = len(self.activity), f"fewer than the {WINDOW} steps needed were saved"
            if len(window) < WINDOW:
                continue
            self.checked += 1
            dead = 100 * float((100 * np.mean(window, axis=0) < inactive).mean())
            if dead > allowed:
                relu = tensor.replace("_activity_", "_input_")
                reason = (
                    f"at step {step.number} {dead:.3g} % of the {values.size} ReLUs of {relu} were active less than"
                    f" {inactive:g} % of the time; up to {allowed:g} % are allowed"
                )
                self.fire(reason, dead, allowed, step.number, step.mode, relu)
