"""Checks of the job's configuration before the toolkit reads it: the toolkit's own answer would be a traceback."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

PROGRAM, MODULE = "sagemaker_program", "SAGEMAKER_TRAINING_MODULE"
# distribution={...} asks for a launcher by sagemaker_NAME_enabled. The toolkit ignores one that is not installed: each
# host would train alone.
LAUNCHER, TORCHRUN = re.compile(r"sagemaker_\w+_enabled"), "sagemaker_torch_distributed_enabled"


def json_type(value: object) -> str:
    """Return the word of JSON for what was read from it: an object, an array, a string ..."""
    words = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return words.get(type(value), "a number")


def read(tree: SageMakerPaths, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of input/config. Raises TrainError."""
    path = tree.config / name
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {json_type(content)}")
    except FileNotFoundError:
        raise TrainError(
            f"{path} does not exist: start this image with `train` over an /opt/ml tree (docs/training.md)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        words = getattr(error, "strerror", None) or error  # without the path once more
        raise TrainError(f"{path} cannot be read as a JSON object: {words}") from None
    return content


def read_or_empty(tree: SageMakerPaths, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of input/config; empty if there is none, as in a run by hand."""
    with contextlib.suppress(TrainError):
        return read(tree, name)
    return {}


def check(tree: SageMakerPaths) -> tuple[dict[str, Any], list[str]]:
    """Return the hyperparameters as written, and the job's hosts. Raises TrainError if no job can run with them."""
    hyperparameters = read(tree, "hyperparameters.json")
    read(tree, "inputdataconfig.json")
    resources = read(tree, "resourceconfig.json")
    here, hosts = resources.get("current_host"), resources.get("hosts")
    if not isinstance(hosts, list) or here not in hosts:
        raise TrainError(
            f"{tree.config / 'resourceconfig.json'}: current_host is {json.dumps(here)} and hosts is"
            f' {json.dumps(hosts)}: expected the name of this host, and those of all hosts, such as ["algo-1"]'
        )
    for name in filter(LAUNCHER.fullmatch, hyperparameters):
        if name != TORCHRUN and is_true(hyperparameters, name):
            raise TrainError(
                f"hyperparameter {name} is true: this image does not have that launcher; leave it out"
                " (distribution={...} of the Estimator): the built-in program uses all hosts and GPUs without it, and a"
                " program of your own runs under torchrun with {'torch_distributed': {'enabled': True}}"
            )
    return hyperparameters, hosts


def own_program(hyperparameters: Mapping[str, Any]) -> str:
    """Return the name of the user's own program; empty if the built-in one is to run.

    In the toolkit's order: ENV SAGEMAKER_TRAINING_MODULE or SAGEMAKER_PROGRAM of a derived image, then the job's
    hyperparameter.
    """
    names = (os.environ.get(MODULE), os.environ.get(PROGRAM.upper()), str(hyperparameters.get(PROGRAM, "")))
    return next((name.strip('"') for name in names if name), "")


def is_true(hyperparameters: Mapping[str, Any], name: str) -> bool:
    return str(hyperparameters.get(name, "")).strip('"').lower() == "true"


def is_known(host: str) -> bool:
    """Return True if the host's name resolves. The toolkit waits for that, too, but never says so."""
    try:
        socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return False
    return True
