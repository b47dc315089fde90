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
"""Saved steps of an epoch that the default interval aims at."""
MOST_STEPS = 1000
"""Saved training steps of a whole job that the default interval keeps to."""
COLLECTIONS = ("losses", "gradients", "weights", "biases", "relu_input", "relu_activity", "labels", "predictions")
SAVED = ("events", "index", "collections")
ENDED = ("claim.smd", "training_job_end.ts", "training_job_end.ts.tmp")


@dataclass(frozen=True)
class SaveSchedule:
    """How long the training is, in steps, and how many steps, of training and of evaluation, were done before it was
    stopped: of it follows what is saved. Of evaluations that is every step, their losses, labels and predictions."""

    steps_per_epoch: int
    epochs: int
    done: int = 0
    done_evaluation: int = 0

    def interval(self, asked: int = 0) -> int:
        """Save every n-th training step; `asked` takes precedence where it is not 0."""
        spread = round(self.steps_per_epoch / STEPS_PER_EPOCH)
        return asked or max(1, spread, math.ceil(self.steps_per_epoch * self.epochs / MOST_STEPS))

    def first(self) -> int:
        """The global step with which the training goes on: training and evaluation steps together."""
        return self.done + self.done_evaluation


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
    strange = sorted(p.name for p in where.glob("*") if p.name not in SAVED + ENDED)
    if strange and first == 0:
        raise FileExistsError(f"{where} holds other files than tensors ({strange[0]})")
    for name in ENDED:
        (where / name).unlink(missing_ok=True)
    for name in SAVED if first == 0 else ():
        shutil.rmtree(where / name, ignore_errors=True)
    # The steps after the checkpoint are made again; what was half written when the job was killed goes, too.
    for file in [path for name in SAVED[:2] for path in (where / name).rglob("*") if path.is_file()]:
        number = file.name.partition("_")[0]
        if not number.isdigit() or int(number) >= first or file.suffix == ".tmp":
            file.unlink()
