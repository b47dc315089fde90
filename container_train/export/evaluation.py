"""How good an artifact is: its answers to pictures, computed by the very code that will serve it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container_serve.artifact import Artifact
from container_serve.errors import RequestError
from container_serve.image import decode
from container_serve.predictor import Predictor
from container_serve.preprocess import is_scaled, preprocess, to_tensor
from container_train.data.dataset import Split, lost
from container_train.progress import dropped, track

SCALED = 300  # pictures: each costs a decoding in full, 0.1 s at 12 megapixels


def probabilities(
    artifacts: Sequence[Artifact], paths: Sequence[Path], what: str, *, scaled: bool = True
) -> list[npt.NDArray[np.float32]]:
    """What a server of each artifact would answer for each picture: float32 (N, C) for each artifact.

    Each picture is decoded once for all artifacts, which therefore have the same preprocessing. A core works on one
    picture at a time, as a worker of the server does. Without `scaled` large JPEGs are decoded in full, unlike there.
    Raises TrainError for a picture that cannot be read.
    """
    cores = len(os.sched_getaffinity(0))
    predictors = [Predictor(artifact, threads=1, callers=cores) for artifact in artifacts]
    spec = artifacts[0].preprocessing

    def answers(path: Path) -> list[npt.NDArray[np.float32]]:
        try:
            body = path.read_bytes()
            tensor = preprocess(body, spec) if scaled else to_tensor(decode(body), spec)
        except (RequestError, OSError) as error:
            raise lost(path, error) from None
        return [predictor.probabilities(tensor[None])[0] for predictor in predictors]

    with ThreadPoolExecutor(cores) as pool, dropped(pool):
        rows = list(track(pool.map(answers, paths), f"measuring {what}", len(paths)))
    return [np.stack(column) for column in zip(*rows, strict=True)]


def scaled_decoding(made: Artifact, split: Split, answers: npt.NDArray[np.float32]) -> dict[str, float | int]:
    """What scaling large JPEGs in the decoder does to the accuracy: the same pictures decoded as they are, beside that.

    `answers` (N, C) are those to the pictures of `split` as served. Of the pictures that are scaled, SCALED at most are
    looked at, spread over the split. The shares are of these; with fewer than 1000, 0.1 points are less than a picture.
    """
    spec = made.preprocessing
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, dropped(pool):
        found = np.flatnonzero(list(pool.map(lambda path: is_scaled(path.read_bytes(), spec), split.paths)))
    if not len(found):
        return {"scaled": 0}
    chosen = found[np.linspace(0, len(found) - 1, min(SCALED, len(found))).astype(int)]
    paths, targets = [split.paths[i] for i in chosen], [split.targets[i] for i in chosen]
    plain = probabilities([made], paths, f"{split.name}, decoded in full", scaled=False)[0]
    return {
        "scaled": len(found),
        "compared": len(chosen),
        "fast": accuracy(answers[chosen], targets),
        "plain": accuracy(plain, targets),
        "differ": float((answers[chosen].argmax(1) != plain.argmax(1)).mean()),
    }


def correct(answers: npt.NDArray[np.float32], targets: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Mark the answers (N, C) whose most probable class is the target: bool (N,). NaN is no class's probability."""
    right: npt.NDArray[np.bool_] = answers.argmax(1) == np.asarray(targets)
    return right & np.isfinite(answers).all(1)


def accuracy(answers: npt.NDArray[np.float32], targets: Sequence[int]) -> float:
    """Share of the answers (N, C) whose most probable class is the target."""
    return float(correct(answers, targets).mean())
