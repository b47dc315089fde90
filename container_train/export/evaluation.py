"""The accuracy of an artifact: its answers to images, computed by the code that will serve it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from container_serve.artifact import Artifact
from container_serve.errors import RequestError
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.data.files import Split, why
from container_train.data.unreadable import none_readable
from container_train.data.unused import SHOWN
from container_train.progress import in_threads

log = logging.getLogger(__name__)

TOP = 3  # classes of an answer that are kept, if there are so many: of 10,000 classes all would take gigabytes


@dataclass(frozen=True)
class Answers:
    """Of each of N images the K most probable classes, int64 (N, K), and their probabilities, float32 (N, K).

    `own` float32 (N,) is the probability of the class that the image is of.
    `finite` bool (N,): an answer that is not of numbers has no most probable class, and is never correct.
    """

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    own: npt.NDArray[np.float32]
    finite: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        return self.classes[:, 0]

    def correct(self, targets: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Mark the answers whose most probable class is the target: bool (N,)."""
        right: npt.NDArray[np.bool_] = self.predicted == np.asarray(targets)
        return right & self.finite

    def accuracy(self, targets: npt.ArrayLike) -> float:
        """Return the share of the answers whose most probable class is the target."""
        return float(self.correct(targets).mean())


@dataclass(frozen=True)
class Evaluated:
    """The images of a split that can be read, the answers of each artifact to them, and the other files by name."""

    split: Split
    answers: list[Answers]
    bad: dict[str, str]


def evaluate(artifacts: Sequence[Artifact], split: Split) -> Evaluated:
    """Return the answers of a server of each artifact to each image.

    Each image is decoded once for all artifacts, which therefore have the same preprocessing. A core works on one image
    at a time, as a worker of the server does. Raises TrainError if none can be read; how many may be bad, of this split
    and the others, is for the caller to say.
    """
    cores = len(os.sched_getaffinity(0))
    predictors = [Predictor(artifact, threads=1, callers=cores) for artifact in artifacts]
    spec = artifacts[0].preprocessing

    shape = len(artifacts), len(split), min(TOP, len(artifacts[0].classes))
    classes, probabilities = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    own, finite = np.zeros(shape[:2], dtype=np.float32), np.zeros(shape[:2], dtype=np.bool_)

    def answer(index: int) -> str:
        """Return the reason why the image cannot be read, or nothing."""
        try:
            tensor = preprocess(split.paths[index].read_bytes(), spec)
        except (RequestError, OSError) as error:
            return why(error)
        for kind, predictor in enumerate(predictors):
            row = predictor.probabilities(tensor[None])[0]
            top = np.argsort(-row, kind="stable")[: shape[2]]
            classes[kind, index], probabilities[kind, index] = top, row[top]
            own[kind, index], finite[kind, index] = row[split.targets[index]], np.isfinite(row).all()
        return ""

    reasons = in_threads(answer, range(len(split)), f"evaluating {split.name}", cores)
    bad = {split.shown(index): reason for index, reason in enumerate(reasons) if reason}
    if len(bad) == len(split):
        raise none_readable(split.name)
    for file, reason in list(bad.items())[:SHOWN]:
        log.warning("skipped %s: %s", file, reason)
    kept = np.array([not reason for reason in reasons])
    if bad:
        log.warning("not evaluated: %d of %d images of %s, which cannot be read", len(bad), len(split), split.name)
        split = split.subset(split.name, np.flatnonzero(kept))
    columns = zip(classes[:, kept], probabilities[:, kept], own[:, kept], finite[:, kept], strict=True)
    return Evaluated(split, [Answers(*column) for column in columns], bad)
