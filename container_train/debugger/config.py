"""The steps that are saved and their folder: by default, and by the service's debughookconfig.json."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from container_train import configuration
from container_train.paths import SageMakerPaths

FILE = "debughookconfig.json"
FIRST_STEPS = 10  # the first steps of a training are all saved: poor_weight_initialization looks at them
STEPS_PER_EPOCH = 20  # saved steps of an epoch that the default interval aims at
MOST_STEPS = 1000  # saved training steps of a whole job that the default interval keeps to
SAVED = ("events", "index", "collections")
ENDED = ("claim.smd", "training_job_end.ts", "training_job_end.ts.tmp")


@dataclass(frozen=True)
class SaveSchedule:
    """The length of the training in steps, from which the interval of saved steps follows.

    `done` are the training steps before the job was interrupted. Of evaluations every step is saved: its loss, labels
    and predictions.
    """

    steps_per_epoch: int
    epochs: int
    done: int = 0

    def interval(self, asked: int = 0) -> int:
        """Save every n-th training step; `asked` takes precedence where it is not 0."""
        spread = round(self.steps_per_epoch / STEPS_PER_EPOCH)
        return asked or max(1, spread, math.ceil(self.steps_per_epoch * self.epochs / MOST_STEPS))


def service_interval(tree: SageMakerPaths) -> int:
    """The shortest interval that the service's configuration asks for; 0 without one. Raises ValueError.

    Its collections are not asked for one by one: all that the documented rules look at is saved anyway.
    """
    content = configuration.read_or_empty(tree, FILE)
    collections = content.get("CollectionConfigurations") or []
    asked = [content.get("HookParameters"), *(collection.get("CollectionParameters") for collection in collections)]
    names = ("save_interval", "train.save_interval")
    intervals = [str(each[name]) for each in asked if each for name in names if each.get(name)]
    if wrong := [words for words in intervals if not words.isdecimal()]:
        raise ValueError(f"{FILE}: a save_interval is {wrong[0]!r}: expected an integer from 1")
    return min(map(int, intervals), default=0)


def folder(tree: SageMakerPaths) -> Path:
    """Return the folder of this job's tensors."""
    return Path(configuration.read_or_empty(tree, FILE).get("LocalPath") or tree.base / "output" / "tensors")


def clear(where: Path) -> None:
    """Take away what an earlier run left there, nothing else. Raises FileExistsError where other things lie."""
    strange = sorted(p.name for p in where.glob("*") if p.name not in SAVED + ENDED)
    if strange:
        raise FileExistsError(f"{where} holds other files than tensors ({strange[0]})")
    for name in ENDED:
        (where / name).unlink(missing_ok=True)
    for name in SAVED:
        shutil.rmtree(where / name, ignore_errors=True)
