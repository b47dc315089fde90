"""Checks of the job's configuration before the toolkit reads it: the toolkit's own answer would be a traceback."""

import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from container_train.errors import Stopped, TrainError
from container_train.paths import SageMakerPaths

NAME_SECONDS = 300.0  # until a host's name has to be known: its container may start later than this one
SAY_SECONDS = 10.0  # after which the log names the host
POLL_SECONDS = 0.5
PROGRAM, MODULE = "sagemaker_program", "SAGEMAKER_TRAINING_MODULE"
# distribution={...} asks for a launcher by sagemaker_NAME_enabled. The toolkit ignores one that is not installed: each
# host would train alone.
LAUNCHER, TORCHRUN = re.compile(r"sagemaker_\w+_enabled"), "sagemaker_torch_distributed_enabled"


def read(tree: SageMakerPaths, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of input/config. Raises TrainError."""
    path = tree.config / name
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}")
    except FileNotFoundError:
        raise TrainError(
            f"{path} does not exist: start this image with `train` over an /opt/ml tree (docs/training.md)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TrainError(f"{path} cannot be read as a JSON object: {error}") from None
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
            f"{tree.config / 'resourceconfig.json'}: current_host is {here!r} and hosts is {hosts!r}: expected the name"
            " of this host, and those of all hosts, such as ['algo-1']"
        )
    for name in filter(LAUNCHER.fullmatch, hyperparameters):
        if name != TORCHRUN and _is_true(hyperparameters, name):
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


def wants_torchrun(hyperparameters: Mapping[str, Any]) -> bool:
    """Return True if distribution={"torch_distributed": {"enabled": True}} asks for it."""
    return _is_true(hyperparameters, TORCHRUN)


def _is_true(hyperparameters: Mapping[str, Any], name: str) -> bool:
    return str(hyperparameters.get(name, "")).strip('"').lower() == "true"


def wait_for_names(hosts: Iterable[str], stopping: Callable[[], bool]) -> None:
    """Wait until the names of all hosts resolve. Raises TrainError after NAME_SECONDS, or Stopped if asked.

    The toolkit waits for them, too, but never says so.
    """
    started, told = time.monotonic(), False
    for host in hosts:
        while not _is_known(host):
            seconds = time.monotonic() - started
            if stopping():
                raise Stopped("before the training began; nothing is lost")
            if seconds > NAME_SECONDS:
                raise TrainError(
                    f"the name of host {host} is not known after {NAME_SECONDS:.0f} s: see whether its container has"
                    " started, and its log; all of the job's containers need one network in which they have the names"
                    " of resourceconfig.json"
                )
            if seconds > SAY_SECONDS and not told:
                told = True
                print(
                    f"waiting until the name of host {host} is known, for at most {NAME_SECONDS:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(POLL_SECONDS)


def _is_known(host: str) -> bool:
    try:
        socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return False
    return True
