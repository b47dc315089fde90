"""The recipes: the defaults of the hyperparameters, by the name of the recipe. Every part can be given by itself."""

from collections.abc import Mapping
from typing import Any

# `head` is the default: what the hyperparameters themselves say.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "head": {},
    # The new layer on frozen ones sees four views of each image, whose features are cached.
    "views": {
        "epochs": 20,
        "lr": 0.003,
        "lr-schedule": "cosine",
        "warmup-epochs": 1.0,
        "optimizer": "adamw",
        "label-smoothing": 0.1,
        "mixup": 0.2,
        "augment": "crop",
        "crop-scale": 0.35,
    },
    "finetune": {
        "epochs": 25,
        "head-epochs": 4,
        "lr": 0.0006,
        "layer-decay": 0.5,
        "lr-schedule": "cosine",
        "warmup-epochs": 1.0,
        "freeze-until": "none",
        "optimizer": "adamw",
        "weight-decay": 0.02,
        "norm-decay": "off",
        "clip": 1.0,
        "label-smoothing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
        "ema": 0.998,
        "augment": "trivial",
        "crop-scale": 0.35,
        "random-erasing": 0.1,
    },
}
