"""vanishing_gradient and exploding_tensor."""

import math

from container_train.debugger.rule import Rule, number
from container_train.debugger.saved_steps import Step


class VanishingGradient(Rule):
    """Fires when the mean of the absolute values of a layer's gradient is below `threshold`.

    The document does not say whether that is the mean of each tensor or of all. Chosen: of the weights (two dimensions
    and more) of each layer, all of their values, at every saved training step. Biases and normalisations are left out:
    a bias in front of a normalisation has no gradient by its nature.
    """

    name = "vanishing_gradient"
    advice = (
        "Look at the layer named: activations that saturate (sigmoid, tanh) or dead ReLUs in front of the loss, missing"
        " normalisation or skip connections, weights that start too small. A larger lr helps where all gradients are"
        " small alike; where the loss is close to 0, the training is simply done."
    )
    missing = "no gradients were saved"
    healthy = "{checked} gradients of layers, none of them vanished"

    def see(self, step: Step) -> None:
        if step.mode != "TRAIN":
            return
        threshold = float(self.parameters["threshold"])
        for tensor in step.gradients():
            value = step.reduction(tensor, "mean", absolute=True)
            self.checked += value is not None
            if value is not None and value < threshold:
                reason = f"the mean absolute gradient of {tensor} was {number(value)}, below {number(threshold)}"
                self.fire(f"at step {step.number} {reason}", value, threshold, step.number, step.mode, tensor)


class ExplodingTensor(Rule):
    """Fires when a saved tensor holds a value that is not finite: NaN, or (unless `only_nan` is 1) infinite.

    Losses, gradients, weights, biases and inputs of ReLUs are looked at, in both modes, and all values of each: the
    mean over the whole tensor was saved (of gradients that of |x|), which is NaN or infinite if one value is. Chosen:
    with a loss scale (float16) gradients are not judged, since scaling up until they overflow, and leaving out that
    step, is how it works; the loss and the weights still are.
    """

    name = "exploding_tensor"
    advice = (
        "Lower lr, first by a factor of ten; clip gradients; look for images or labels that are broken, for a"
        " division by 0 or a logarithm of 0; train with amp off to see whether it is float16's range."
    )
    missing = "no tensors were saved"
    healthy = "{checked} tensors, all of them finite"

    def see(self, step: Step) -> None:
        only_nan, scaled = int(self.parameters["only_nan"]), "loss_scale" in step.tensors
        for collection in ("losses", "gradients", "weights", "biases", "relu_input"):
            gradients = collection == "gradients"
            for tensor in step.names(collection) if not (gradients and scaled) else ():
                value = step.reduction(tensor, "mean", absolute=gradients)
                self.checked += value is not None
                if value is not None and (math.isnan(value) or (math.isinf(value) and not only_nan)):
                    kind = "NaN" if math.isnan(value) else "an infinite value"
                    reason = f"at {step.mode} step {step.number} {tensor} holds {kind}"
                    self.fire(reason, value, math.inf, step.number, step.mode, tensor)
