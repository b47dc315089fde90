"""The processes of a job have the same hyperparameters, images and weights; otherwise they would wait forever."""

import json
from typing import Any

from container_train.errors import TrainError


def same_hyperparameters(given: list[str]) -> None:
    """By rank, as JSON: processes that do not agree would wait for each other for ever."""
    first: dict[str, Any] = json.loads(given[0])
    for rank, text in enumerate(given):
        for name, value in json.loads(text).items():
            if value != first[name]:
                raise TrainError(
                    f"hyperparameter {name} has value {value!r} in process {rank} of {len(given)} and {first[name]!r}"
                    " in the first: give every host the same hyperparameters"
                )


def same_images(fingerprints: list[str]) -> None:
    """By rank."""
    other = [rank for rank, fingerprint in enumerate(fingerprints) if fingerprint != fingerprints[0]]
    if other:
        raise TrainError(
            f"process {other[0]} of {len(fingerprints)} has other images than the first: every host needs all of"
            " them, give the channels the distribution type FullyReplicated"
        )


def same_weights(digests: list[str]) -> None:
    if len(set(digests)) > 1:
        raise TrainError(
            f"the {len(digests)} processes have trained different weights: this is an error of the program"
        )
