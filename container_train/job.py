"""The facts about a job at its start: the first content of job.json, the names of hosts and folders."""

import os
import re
import socket
import sys
import time
from typing import Any

from container_train import configuration
from container_train.data import channels
from container_train.hyperparameters import Hyperparameters
from container_train.paths import SageMakerPaths
from container_train.profiler import machine


def describe(tree: SageMakerPaths, hp: Hyperparameters) -> dict[str, Any]:
    """Return the facts. Times are seconds since 1970; `cpus` and `memory_bytes` are the container's limits."""
    host, every = hosts(tree)
    cpus, memory = machine.limits()
    return {
        "job": os.environ.get("TRAINING_JOB_NAME", ""),
        "image": os.environ.get("BYOC_IMAGE", ""),
        "host": host,
        "hosts": every,
        "started": round(time.time(), 3),
        "ended": None,
        "status": "running",
        "reason": "",
        "problems": [],
        "hyperparameters": hyperparameters(tree, hp),
        "cpus": cpus,
        "memory_bytes": memory,
        "gpus": [],
        "versions": {"python": sys.version.split()[0]},
        "profile_interval_ms": hp.profile_interval,
        "debug": {
            "state": hp.debug,
            "reason": "as asked" if hp.debug == "off" else "",
            "interval": hp.debug_interval,
        },
    }


def hyperparameters(tree: SageMakerPaths, hp: Hyperparameters) -> dict[str, Any]:
    """Return the values that apply: a file in the channel `weights` takes precedence. Raises TrainError."""
    file = channels.weights(tree)
    return {**hp.to_dict(), **({"weights": f"file {file.name}"} if file else {})}


def hosts(tree: SageMakerPaths) -> tuple[str, list[str]]:
    """Return this host's name and all names, as the platform gives them; the machine's own name without one."""
    content = configuration.read_or_empty(tree, "resourceconfig.json")
    here = str(content.get("current_host") or socket.gethostname())
    return here, sorted(map(str, content.get("hosts") or [here]))


def node(tree: SageMakerPaths) -> str:
    """Return algo-N, as the platform names its hosts, and as the readers of its metrics want them."""
    host, every = hosts(tree)
    return host if re.fullmatch(r"algo-\d+", host) else f"algo-{1 + (every.index(host) if host in every else 0)}"
