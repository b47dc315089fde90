"""Several requests that the graph computes together; each is answered in its own turn all the same."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve.codec import Request
from container_serve.errors import ArtifactError
from container_serve.predictor import Predictor


@dataclass(frozen=True)
class Decoded:
    """A request whose images are tensors, float32 (N, 3, H, W), after so many seconds."""

    context: Any  # the model server's, of this request alone
    request: Request
    answer_type: str
    tensors: npt.NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Computed:
    """The results of a request before its turn; probabilities are float32 (N, classes)."""

    request: Request
    answer_type: str
    tensors: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    seconds: dict[str, float]


def compute(batch: Sequence[Decoded], model: Predictor) -> dict[int, Computed]:
    """The results by the identity of each request's context; none where the batch fails: each is then tried alone."""
    if len(batch) < 2:
        return {}
    begun = time.perf_counter()
    found: dict[int, Computed] = {}
    with suppress(ArtifactError):
        table = model.probabilities(np.concatenate([one.tensors for one in batch]))
        seconds = time.perf_counter() - begun
        for one in batch:
            rows, table = table[: len(one.tensors)], table[len(one.tensors) :]
            times = {"decode": one.seconds, "model": seconds}
            found[id(one.context)] = Computed(one.request, one.answer_type, one.tensors, rows, times)
    return found
