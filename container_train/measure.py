"""How good an artifact is: its answers to pictures, computed by the very code that will serve it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container_serve.artifact import Artifact
from container_serve.errors import RequestError
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.errors import TrainError
from container_train.progress import track


def probabilities(artifacts: Sequence[Artifact], paths: Sequence[Path], what: str) -> list[npt.NDArray[np.float32]]:
    """What a server of each artifact would answer for each picture: float32 (N, C) for each artifact.

    Each picture is decoded once for all artifacts, which therefore have the same preprocessing. A core works on one
    picture at a time, as a worker of the server does. Raises TrainError for a picture that cannot be read.
    """
    cores = len(os.sched_getaffinity(0))
    predictors = [Predictor(artifact, threads=1, callers=cores) for artifact in artifacts]
    spec = artifacts[0].preprocessing

    def answers(path: Path) -> list[npt.NDArray[np.float32]]:
        try:
            tensor = preprocess(path.read_bytes(), spec)[None]
        except (RequestError, OSError) as error:
            raise TrainError(f"{path}: {error}") from None
        return [predictor.probabilities(tensor)[0] for predictor in predictors]

    with ThreadPoolExecutor(cores) as pool:
        rows = list(track(pool.map(answers, paths), f"measuring {what}", len(paths)))
    return [np.stack(column) for column in zip(*rows, strict=True)]


def accuracy(answers: npt.NDArray[np.float32], targets: Sequence[int]) -> float:
    """Share of the answers (N, C) whose most probable class is the target."""
    return float((answers.argmax(1) == np.asarray(targets)).mean())
