"""All rules of the debugger over the steps of a training, and the figures of tensors.json."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from container_train.debugger import KNOWN, loss_rules, tensor_rules
from container_train.debugger.history import History
from container_train.debugger.saved_steps import Step
from container_train.monitoring.findings import Finding, Judge, Parameters, Rule, Severity, evaluate

JUDGES: tuple[tuple[str, Judge, Severity, str], ...] = (  # name, judge, how bad, what to do
    (
        "vanishing_gradient", tensor_rules.vanishing_gradient, "problem",
        "Look at the layer named: activations that saturate (sigmoid, tanh) or dead ReLUs in front of the loss,"
        " missing normalisation or skip connections, weights that start too small. A larger --lr helps where all"
        " gradients are small alike.",
    ),
    (
        "exploding_tensor", tensor_rules.exploding_tensor, "problem",
        "Lower --lr, first by a factor of ten, and clip the gradients (--clip 1); look for broken images or labels,"
        " for a division by 0 or a logarithm of 0; train with --amp off to see whether it is float16's range.",
    ),
    (
        "overfit", loss_rules.overfit, "warning",
        "Stop earlier (--patience 3, or --on-rule stop: the best epoch is kept), augment the images (--augment crop"
        " or trivial), smooth the labels (--label-smoothing 0.1), set --weight-decay, train fewer layers"
        " (--freeze-until), or add images. A gap alone is normal where the training loss is close to 0.",
    ),
    (
        "overtraining", loss_rules.overtraining, "information",
        "More epochs bring nothing: set --epochs to where the validation loss was lowest, or --patience so that the"
        " job ends there by itself; or let lr fall to the end (--lr-schedule cosine). The exported model is that"
        " of the best epoch anyway.",
    ),
    (
        "loss_not_decreasing", loss_rules.loss_not_decreasing, "problem",
        "Change --lr: ten times lower where the loss jumps about or rises, higher where it stands still from the"
        " first step on; --warmup-epochs 1 helps where it rises first. Then look at the data: labels that do not"
        " belong to their images, images all alike. Late in a training it says that the training is done: fewer"
        " --epochs, or --patience.",
    ),
    (
        "poor_weight_initialization", tensor_rules.poor_weight_initialization, "warning",
        "Start convolutions and linear layers in front of ReLUs by He's rule (torch.nn.init.kaiming_normal_),"
        " others by Xavier's, biases at 0; put normalisation between layers; never start all weights of a layer"
        " alike. Or take pretrained weights (--weights).",
    ),
    (
        "dead_relu", tensor_rules.dead_relu, "warning",
        "Lower --lr: one step too large is what usually kills them, and they do not come back; --clip 1 and"
        " --warmup-epochs 1 keep steps small. Start again from a checkpoint before; use LeakyReLU or GELU,"
        " normalisation before the ReLU, biases that start at 0.",
    ),
    (
        "class_imbalance", loss_rules.class_imbalance, "warning",
        "Add images of the small classes, or weight them more (--class-weights balanced); choose the epoch by"
        " --select-by macro-f1; look at the accuracy per class in report.html, the mean over all images hides small"
        " classes.",
    ),
)  # fmt: skip
RULES = {name: Rule(judge, KNOWN[name], advice, severity) for name, judge, severity, advice in JUDGES}
POINTS = 500  # of a curve in tensors.json
Curve = list[tuple[int, float | None]]  # step, value


class RuleEvaluator:
    """Gathers what the rules look at, step by step, and says what they find."""

    def __init__(self, parameters: Mapping[str, Parameters]) -> None:
        self.parameters = parameters
        chosen = {name: {**defaults, **parameters.get(name, {})} for name, defaults in KNOWN.items()}
        steps = int(chosen["poor_weight_initialization"]["steps"])
        self.history = History(steps, float(chosen["dead_relu"]["threshold_inactivity"]))
        self.gradients: dict[str, Curve] = {}  # the norms of the layers'
        self.losses: Curve = []

    def see(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.history.add(step)
            if step.mode != "TRAIN":
                continue
            if (loss := step.loss()) is not None:
                self.losses.append((step.number, loss))
            for tensor in step.gradients():
                self.gradients.setdefault(layer(tensor), []).append((step.number, step.reduction(tensor, "l2")))

    def figures(self) -> dict[str, Any]:
        """Return the content of tensors.json, of the training steps."""
        return {
            "gradients": {name: _columns(curve, "norm") for name, curve in self.gradients.items()},
            "losses": {"train": _columns(self.losses, "value")},
        }

    def findings(self, job: Mapping[str, Any], *, final: bool = False) -> list[Finding]:
        """`job` is job.json as it is now: facts of what is trained come after the job's start."""
        self.history.job = job
        if final:
            self.history.conclude()
        return evaluate(RULES, "debugger", self.history, self.parameters, final=final)


def _columns(curve: Curve, name: str) -> dict[str, list[Any]]:
    """At most POINTS of the points, spread evenly. Not finite: null."""
    points = curve[:: 1 + len(curve) // POINTS]
    values = [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for _, value in points]
    return {"step": [step for step, _ in points], name: values}


def layer(tensor: str) -> str:
    """`gradient/GraphModule_layer4.0.conv1.weight` -> `layer4.0.conv1`."""
    return re.sub(r"^gradient/[^_]*_", "", tensor).removesuffix(".weight")
