"""What the platform says of a job in input/config, looked at before the toolkit does: it answers with a traceback."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from container_train.errors import Stopped, TrainError
from container_train.paths import SageMakerPaths

NAME_SECONDS = 300.0  # that a host's name may take to be known: its container may start later than this one
SAY_SECONDS = 10.0  # after which it is said that one is waited for
POLL_SECONDS = 0.5
MOST, LONGEST = 100, 2500  # hyperparameters, and characters of a value, that the service takes
NAME = re.compile(r"(?!-)[\w.-]{1,256}")
LOG_LEVEL = "sagemaker_container_log_level"
PROGRAM, MODULE = "sagemaker_program", "SAGEMAKER_TRAINING_MODULE"
# Launchers that distribution={...} asks for. The toolkit passes over what it has not got: each host would train alone.
ELSEWHERE = {
    "sagemaker_mpi_enabled": "MPI",
    "sagemaker_distributed_dataparallel_enabled": "smdistributed library",
    "sagemaker_pytorch_ddp_enabled": "smdistributed library",
    "sagemaker_pytorch_xla_multi_worker_enabled": "PyTorch/XLA",
    "sagemaker_parameter_server_enabled": "parameter server",
    "sagemaker_multi_worker_mirrored_strategy_enabled": "TensorFlow",
}


def read(tree: SageMakerPaths, name: str) -> dict[str, Any]:
    """The JSON object in a file of input/config. Raises TrainError."""
    path = tree.config / name
    try:
        found = json.loads(path.read_bytes().decode())  # as the toolkit reads it: UTF-8 without a mark at its beginning
    except FileNotFoundError:
        raise TrainError(
            f"{path} is not there: start this image with `train` over an /opt/ml tree (docs/training.md)"
        ) from None
    except OSError as error:
        raise TrainError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TrainError(f"{path} is not a JSON object: {error}") from None
    if not isinstance(found, dict):
        raise TrainError(f"{path} is not a JSON object, but a {type(found).__name__}")
    return found


def check(tree: SageMakerPaths) -> tuple[dict[str, Any], list[str]]:
    """The hyperparameters as they are written, and the job's hosts. Raises TrainError for what no job can run with."""
    hyperparameters = read(tree, "hyperparameters.json")
    read(tree, "inputdataconfig.json")
    resources = read(tree, "resourceconfig.json")
    path = tree.config / "resourceconfig.json"
    here, hosts = resources.get("current_host"), resources.get("hosts")
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) and host for host in hosts):
        raise TrainError(f"{path}: hosts is {hosts!r}: expected the names of the job's hosts, such as ['algo-1']")
    if here not in hosts:
        raise TrainError(f"{path}: current_host {here!r} is none of hosts, which are {', '.join(hosts)}")
    twice = [host for host in hosts if hosts.count(host) > 1]
    if twice:
        raise TrainError(f"{path}: hosts names {twice[0]!r} more than once: each host has a name of its own")
    for name, what in ELSEWHERE.items():
        if _is_true(hyperparameters, name):
            raise TrainError(
                f"hyperparameter {name} is true: this image has no {what}; leave it out (distribution={{...}} of the"
                " Estimator): the built-in program uses all hosts and GPUs without it, and a program of your own runs"
                " under torchrun with {'torch_distributed': {'enabled': True}}"
            )
    given = hyperparameters.get(PROGRAM, "train.py")
    if not isinstance(given, str) or not given.strip('" '):
        raise TrainError(f"hyperparameter {PROGRAM} has value {given!r}: expected a program's file name")
    if not own_program(hyperparameters):  # what a user's own program takes is its own matter
        _check_hyperparameters(hyperparameters, tree.config / "hyperparameters.json")
    return hyperparameters, hosts


def own_program(hyperparameters: Mapping[str, Any]) -> str:
    """Return the name of the user's own program; empty where the built-in one is to run.

    In the toolkit's order: ENV SAGEMAKER_TRAINING_MODULE or SAGEMAKER_PROGRAM of a derived image, then the job's
    hyperparameter.
    """
    names = (os.environ.get(MODULE), os.environ.get(PROGRAM.upper()), str(hyperparameters.get(PROGRAM, "")))
    return next((name.strip('"') for name in names if name), "")


def wants_torchrun(hyperparameters: Mapping[str, Any]) -> bool:
    """Return True where distribution={"torch_distributed": {"enabled": True}} asks for it."""
    return _is_true(hyperparameters, "sagemaker_torch_distributed_enabled")


def _is_true(hyperparameters: Mapping[str, Any], name: str) -> bool:
    return str(hyperparameters.get(name, "")).strip('"').lower() == "true"


def _check_hyperparameters(found: dict[str, Any], path: Path) -> None:
    """What the service would not have taken, or the toolkit answers with a traceback. Raises TrainError."""
    if len(found) > MOST:
        raise TrainError(f"{path} has {len(found)} hyperparameters: at most {MOST} are allowed")
    spelled: dict[str, str] = {}
    for name, value in found.items():
        if not NAME.fullmatch(name):
            raise TrainError(f"{path}: {name[:50]!r} is no name of a hyperparameter: letters, digits, - and _ are")
        if len(str(value)) > LONGEST or not _is_text(str(value)):
            raise TrainError(
                f"hyperparameter {name} has value {str(value)[:50]!r}: expected at most {LONGEST} characters of text"
            )
        other = spelled.setdefault(name.replace("_", "-"), name)
        if other != name:
            raise TrainError(f"hyperparameters {other} and {name} are the same one: give it once")
    level = str(found.get(LOG_LEVEL, "0")).strip('"')
    if not level.isdecimal():
        raise TrainError(f"hyperparameter {LOG_LEVEL} has value {level[:50]!r}: expected a number, such as 20")


def _is_text(value: str) -> bool:
    """Whether it can be a word of a command line."""
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair
        return False
    return "\0" not in value


def wait_for_names(hosts: Iterable[str], stopping: Callable[[], bool]) -> None:
    """Until all hosts can be looked up, as the toolkit does without a word. Raises TrainError, or Stopped if asked."""
    begun, said = time.monotonic(), False
    for host in hosts:
        while not _known(host):
            seconds = time.monotonic() - begun
            if stopping():
                raise Stopped("before the training began; nothing is lost")
            if seconds > NAME_SECONDS:
                raise TrainError(
                    f"the name of host {host} is not known after {NAME_SECONDS:.0f} s: see whether its container has"
                    " started, and its log; all of the job's containers need one network in which they have the names"
                    " of resourceconfig.json"
                )
            if seconds > SAY_SECONDS and not said:
                said = True
                print(
                    f"waiting until the name of host {host} is known, for at most {NAME_SECONDS:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(POLL_SECONDS)


def _known(host: str) -> bool:
    try:
        socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return False
    return True
