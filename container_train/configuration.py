"""What the platform says of a job in input/config, looked at before the toolkit does: it answers with a traceback."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from container_train.errors import Stopped, TrainError
from container_train.tree import Tree

NAME_SECONDS = 300.0  # that a host's name may take to be known: its container may start later than this one
SAY_SECONDS = 10.0  # after which it is said that one is waited for
POLL_SECONDS = 0.5


def read(tree: Tree, name: str) -> dict[str, Any]:
    """The JSON object in a file of input/config. Raises TrainError."""
    path = tree.config / name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TrainError(
            f"{path} is not there: start this image with `train` over an /opt/ml tree (README, training)"
        ) from None
    except OSError as error:
        raise TrainError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TrainError(f"{path} is not a JSON object: {error}") from None
    if not isinstance(found, dict):
        raise TrainError(f"{path} is not a JSON object, but a {type(found).__name__}")
    return found


def check(tree: Tree) -> tuple[dict[str, Any], list[str]]:
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
    return hyperparameters, hosts


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
