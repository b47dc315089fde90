"""Small trainings of the real parts, as the pipeline puts them together."""

from collections.abc import Mapping
from pathlib import Path

import torch

from container_train import command_line
from container_train.compute.precision import Precision
from container_train.compute.runtime import Runtime
from container_train.data.dataset import Data
from container_train.features.location import Store
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import builder
from container_train.paths import SageMakerPaths
from container_train.signals import StopFlag
from container_train.training.checkpoint import changing
from container_train.training.engine import Trainer
from tests import trees

CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]


class StopAfter(StopFlag):
    """Asks for a stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        raise AssertionError


def parsed(**options: str) -> Hyperparameters:
    """Parse hyperparameters on top of trees.SMALL and three epochs; `batch_size` is `batch-size`."""
    words = {**trees.SMALL, "epochs": "3", **{key.replace("_", "-"): value for key, value in options.items()}}
    return command_line.parse([word for key, value in words.items() for word in (f"--{key}", value)])


def source(
    data: Data,
    base: Path | None = None,
    options: Mapping[str, str] | None = None,
    stop: StopFlag | None = None,
    hp: Hyperparameters | None = None,
) -> Source:
    """Return the batches of a training; features are kept in the tree `base`, if it is given."""
    hp = hp or parsed(**(options or {}))
    network = builder.build(
        hp.arch, len(data.classes), weights="none", weights_file=None, freeze_until=hp.freeze_until,
        image_size=hp.image_size, seed=hp.seed, freeze_statistics=hp.batch_norm == "frozen",
    )  # fmt: skip
    network.to(CPU)
    store = Store.of(SageMakerPaths(base)) if base else None
    return Source(data, network, hp, Runtime(CPU, Precision.choose(hp.amp, CPU), stop or StopFlag()), store)


def weights(it: Source | Trainer) -> Weights:
    """Return copies of what the training changes."""
    return changing(it.network.model)


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
