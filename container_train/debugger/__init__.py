"""The debugger: a hook that saves tensors of a training, and rules that judge them in a process of their own.

Its definitions are the documented ones of SageMaker Debugger's built-in rules, see
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html
"""

import os
from collections.abc import Mapping

# It takes effect when smdebug is first imported, whose INFO is a line per parameter.
os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")

KNOWN: Mapping[str, Mapping[str, float | int | str]] = {
    "vanishing_gradient": {"threshold": 1e-7},
    "exploding_tensor": {"only_nan": 0},
    "overfit": {"ratio_threshold": 0.1, "patience": 1, "start_step": 0},
    "overtraining": {"patience_train": 5, "patience_validation": 10, "delta": 0.01},
    "loss_not_decreasing": {"num_steps": 10, "diff_percent": 0.1, "increase_threshold_percent": 5.0, "mode": ""},
    "poor_weight_initialization": {"threshold": 10.0, "distribution_range": 0.001, "patience": 5, "steps": 10},
    "dead_relu": {"threshold_inactivity": 1.0, "threshold_layer": 50.0},
    "class_imbalance": {"threshold_imbalance": 10.0, "threshold_misprediction": 0.7},
}
"""The rules and their parameters' documented defaults. `only_nan` is 0 or 1; `mode` TRAIN, EVAL or "" (both)."""
