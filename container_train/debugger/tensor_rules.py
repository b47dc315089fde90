"""vanishing_gradient, exploding_tensor, poor_weight_initialization and dead_relu.

Their definitions are those of https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html; a rule's
docstring says what was chosen where that leaves something open.
"""

import math
from dataclasses import replace

from container_train.debugger.history import WINDOW, History
from container_train.monitoring.findings import Evidence, Finding, Hit, Parameters, found, judged
from container_train.reporting.words import figure

LEARNED_ALL = 0.001  # of a training loss, where there is nothing left to learn


def vanishing_gradient(history: History, parameters: Parameters) -> Finding:
    """Fires when the mean of the absolute values of a layer's gradient is below `threshold`.

    The document does not say whether that is the mean of each tensor or of all. Chosen: of the weights (two dimensions
    and more) of each layer, all of their values, at every saved training step. Biases and normalisations are left out:
    a bias in front of a normalisation has no gradient by its nature. Where the training loss is all but 0 the gradients
    are, too: then it is an information.
    """
    limit = parameters["threshold"]
    hits = [
        (
            f"at step {step} the mean absolute gradient of {tensor} was {figure(value)}, below {figure(limit)}",
            Evidence(value, limit, step, "TRAIN", tensor),
        )
        for step, tensor, value in history.gradients
        if value < limit
    ]
    checked = len(history.gradients)
    if not checked:
        return found("waiting", "no gradients were saved")
    losses = dict(history.losses)
    done = hits and all(losses.get(evidence.step or 0, math.inf) < LEARNED_ALL for _, evidence in hits)
    finding = judged(hits, checked, f"{checked} gradients of layers, none of them vanished")
    return replace(finding, severity="information" if done else None)


def exploding_tensor(history: History, parameters: Parameters) -> Finding:
    """Fires when a saved tensor holds a value that is not finite: NaN, or (unless `only_nan` is 1) infinite.

    Losses, gradients, weights, biases and inputs of ReLUs are looked at, in both modes, and all values of each. Chosen:
    with a loss scale (float16) gradients are not judged; the loss and the weights still are.
    """
    hits = [
        (
            f"at {mode} step {step} {tensor} holds {'NaN' if math.isnan(value) else 'an infinite value'}",
            Evidence(value, math.inf, step, mode, tensor),
        )
        for mode, step, tensor, value in history.exploded
        if math.isnan(value) or not parameters["only_nan"]
    ]
    if not history.checked:
        return found("waiting", "no tensors were saved")
    return judged(hits, history.checked, f"{history.checked} tensors, all of them finite")


def poor_weight_initialization(history: History, parameters: Parameters) -> Finding:
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
    first, pretrained = history.first, bool((history.job.get("debug") or {}).get("pretrained"))
    if first and first[0].number > 0:
        return found(
            "not_applicable", f"the first saved step is {first[0].number}: the weights at the start are not known"
        )
    hits: list[Hit] = []
    compared = gradients = stale = 0
    best = math.inf
    for step in first:
        if step.loss is not None:
            best, stale = (step.loss, 0) if step.loss < best else (best, stale + 1)
        variances, spreads = step.variances, step.last if pretrained else step.spreads
        if len(variances) > 1 and not pretrained:
            compared += 1
            low, high = min(variances, key=variances.__getitem__), max(variances, key=variances.__getitem__)
            ratio = variances[high] / variances[low] if variances[low] > 0 else math.inf
            limit = parameters["threshold"]
            if variances[high] > 0 and ratio > limit:
                reason = (
                    f"at step {step.number} the variance of {high} ({figure(variances[high])}) was {figure(ratio)}"
                    f" times that of {low} ({figure(variances[low])}); up to {limit:g} times is allowed"
                )
                hits.append((reason, Evidence(ratio, limit, step.number, "TRAIN", high)))
        if spreads:
            gradients += 1
            tensor, limit = min(spreads, key=spreads.__getitem__), parameters["distribution_range"]
            if spreads[tensor] < limit and stale >= parameters["patience"]:
                reason = (
                    f"at step {step.number} nine tenths of {tensor} lay within {figure(spreads[tensor])}, less than"
                    f" {figure(limit)}, and the loss had not fallen for {stale} steps"
                )
                hits.append((reason, Evidence(spreads[tensor], limit, step.number, "TRAIN", tensor)))
    if not compared and not gradients:
        return found("waiting", "no gradients or inputs of ReLUs of the first steps were saved")
    healthy = f"inputs of ReLUs and gradients in {len(first)} steps"
    if pretrained:
        healthy = f"the new layer's gradients in {len(first)} steps; pretrained layers were not started here"
    elif compared < len(first):
        healthy = f"gradients in {len(first)} steps; there are no two ReLUs whose inputs could be compared"
    return judged(hits, compared + gradients, healthy)


def dead_relu(history: History, parameters: Parameters) -> Finding:
    """Fires when more than `threshold_layer` percent of a layer's ReLUs are dead.

    One is dead that is active less than `threshold_inactivity` percent. The document leaves open what one ReLU is, and
    over what it is active. Chosen: a channel of a convolution's output, or a feature of a linear layer's; it is active
    at the share of images and positions where its input is positive, over WINDOW saved training steps. The hook counts
    that over the inputs, of large ones over half a million of them. A ReLU that a network calls as a function is not
    seen.
    """
    inactive, limit = parameters["threshold_inactivity"], parameters["threshold_layer"]
    hits = [
        (
            f"at step {step} {dead:.3g} % of the {units} ReLUs of {relu} were active less than {inactive:g} % of the"
            f" time; up to {limit:g} % is allowed",
            Evidence(dead, limit, step, "TRAIN", relu),
        )
        for step, relu, units, dead in history.dead
        if dead > limit
    ]
    if not history.relus:
        return found("waiting", "what is trained has no ReLU of its own (one that is called as a function is not seen)")
    if not history.dead:
        return found("waiting", f"fewer than the {WINDOW} steps needed were saved")
    return judged(hits, len(history.dead), f"{len(history.relus)} ReLU layers, looked at {len(history.dead)} times")
