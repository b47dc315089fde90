"""What is saved when: the service's debughookconfig.json where there is one, else defaults of our own."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container_train.paths import SageMakerPaths

FILE = "debughookconfig.json"
FIRST_STEPS = 10
"""The first steps of a training are all saved: poor_weight_initialization looks at them."""
STEPS_PER_EPOCH = 20
"""Saved steps of an epoch, and of an evaluation, that the default interval aims at."""
MOST_STEPS = 1000
"""Saved training steps of a whole job, and evaluation steps, that the default interval keeps to."""
COLLECTIONS = ("losses", "gradients", "weights", "biases", "relu_input", "relu_activity", "labels", "predictions")
OURS = ("events", "index", "collections", "claim.smd", "training_job_end.ts", "training_job_end.ts.tmp")


@dataclass(frozen=True)
class Plan:
    """How long the training is, in steps: of it follows what is saved. `done` were made before the job was stopped."""

    steps_per_epoch: int
    evaluation_steps: int
    epochs: int
    done: int = 0
    done_evaluation: int = 0

    def interval(self, asked: int = 0) -> int:
        """Save every n-th training step; `asked` wins where it is not 0."""
        return asked or _spread(self.steps_per_epoch, self.epochs)

    def evaluation_interval(self) -> int:
        """Save every n-th batch of each evaluation, beginning with its first."""
        return _spread(self.evaluation_steps, self.epochs)

    def first_evaluation(self, interval: int) -> int:
        """The number of the next evaluation step: each evaluation begins at a multiple of its `interval`."""
        passes = self.done_evaluation // max(self.evaluation_steps, 1)
        return passes * math.ceil(self.evaluation_steps / interval) * interval

    def first(self, interval: int) -> int:
        """The global step with which the training goes on: training and evaluation steps together."""
        return self.done + self.first_evaluation(interval)


def _spread(steps: int, epochs: int) -> int:
    return max(1, round(steps / STEPS_PER_EPOCH), math.ceil(steps * epochs / MOST_STEPS))


def read(tree: SageMakerPaths) -> dict[str, Any] | None:
    """The service's configuration with its LocalPath filled in; None without one. Raises ValueError, OSError."""
    file = tree.config / FILE
    if not file.is_file():
        return None
    content = json.loads(file.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object")
    return {**content, "LocalPath": content.get("LocalPath") or str(tensors(tree))}


def tensors(tree: SageMakerPaths) -> Path:
    """Where tensors go unless the service's configuration says otherwise."""
    return tree.base / "output" / "tensors"


def folder(tree: SageMakerPaths) -> Path:
    """Where this job's tensors go. Never raises: a configuration that cannot be read is the hook's to report."""
    try:
        content = read(tree)
    except (OSError, ValueError):
        content = None
    return Path(content["LocalPath"]) if content else tensors(tree)


def clear(where: Path, first: int) -> None:
    """Make room: with `first` 0 for a new training, else for one that goes on with the global step `first`.

    Takes away what smdebug left there, nothing else. Raises FileExistsError where other things lie.
    """
    if not where.exists():
        return
    strange = sorted(p.name for p in where.iterdir() if p.name not in OURS)
    if strange and first == 0:
        raise FileExistsError(f"{where} holds other files than tensors ({strange[0]})")
    for name in ("claim.smd", "training_job_end.ts", "training_job_end.ts.tmp"):
        (where / name).unlink(missing_ok=True)
    if first == 0:
        for name in ("events", "index", "collections"):
            shutil.rmtree(where / name, ignore_errors=True)
        return
    # The steps after the checkpoint are made again; what was half written when the job was killed goes, too.
    for file in [p for part in ("events", "index") for p in (where / part).rglob("*") if p.is_file()]:
        number = file.name.partition("_")[0]
        if not number.isdigit() or int(number) >= first or file.suffix == ".tmp":
            file.unlink()
