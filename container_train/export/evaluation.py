"""The accuracy of an artifact: its answers to images, computed by the code that will serve it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container_serve.artifact import Artifact
from container_serve.errors import RequestError
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.data.dataset import lost
from container_train.progress import in_threads


def probabilities(artifacts: Sequence[Artifact], paths: Sequence[Path], what: str) -> list[npt.NDArray[np.float32]]:
    """Return the answers of a server of each artifact to each image: float32 (N, C) for each artifact.

    Each image is decoded once for all artifacts, which therefore have the same preprocessing. A core works on one image
    at a time, as a worker of the server does. Raises TrainError for an image that cannot be read.
    """
    cores = len(os.sched_getaffinity(0))
    predictors = [Predictor(artifact, threads=1, callers=cores) for artifact in artifacts]
    spec = artifacts[0].preprocessing

    def answers(path: Path) -> list[npt.NDArray[np.float32]]:
        try:
            tensor = preprocess(path.read_bytes(), spec)
        except (RequestError, OSError) as error:
            raise lost(path, error) from None
        return [predictor.probabilities(tensor[None])[0] for predictor in predictors]

    rows = in_threads(answers, paths, f"evaluating {what}", cores)
    return [np.stack(column) for column in zip(*rows, strict=True)]


def correct(answers: npt.NDArray[np.float32], targets: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mark the answers (N, C) whose most probable class is the target: bool (N,). NaN is no class's probability."""
    predicted: npt.NDArray[np.bool_] = answers.argmax(1) == np.asarray(targets)
    return predicted & np.isfinite(answers).all(1)


def accuracy(answers: npt.NDArray[np.float32], targets: npt.ArrayLike) -> float:
    """Return the share of the answers (N, C) whose most probable class is the target."""
    return float(correct(answers, targets).mean())
