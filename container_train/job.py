"""What is known of a job at its start: the first content of job.json, and the names of hosts and folders."""

import contextlib
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

from container_train.hyperparameters import Hyperparameters
from container_train.paths import SageMakerPaths
from container_train.profiler import cgroup


def describe(tree: SageMakerPaths, hp: Hyperparameters) -> dict[str, Any]:
    """Times in seconds since 1970; `cpus` and `memory_bytes` are what the container may use."""
    host, every = hosts(tree)
    limits = cgroup.limits()
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
        "hyperparameters": hp.to_dict(),
        "cpus": limits.cpus,
        "memory_bytes": limits.memory_bytes,
        "gpus": [],
        "versions": {"python": sys.version.split()[0]},
        "profile_interval_ms": hp.profile_interval,
        "debug": {
            "state": hp.debug,
            "reason": "as asked" if hp.debug == "off" else "",
            "interval": hp.debug_interval,
        },
        "sampler": {},
    }


def hosts(tree: SageMakerPaths) -> tuple[str, list[str]]:
    """This host's name and all of them, as the platform says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((tree.config / "resourceconfig.json").read_text())
        return str(content["current_host"]), sorted(map(str, content["hosts"]))
    return socket.gethostname(), [socket.gethostname()]


def interface(tree: SageMakerPaths) -> str:
    """The network interface on which the hosts of a job reach each other; empty where the platform names none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((tree.config / "resourceconfig.json").read_text())["network_interface_name"])
    return ""


def node(tree: SageMakerPaths) -> str:
    """algo-N, as the platform names its hosts, and as the readers of its metrics want them."""
    host, every = hosts(tree)
    return host if re.fullmatch(r"algo-\d+", host) else f"algo-{1 + (every.index(host) if host in every else 0)}"


def tensors(tree: SageMakerPaths) -> Path:
    """Where the hook saves: the service's debughookconfig.json may say another folder."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Path(json.loads((tree.config / "debughookconfig.json").read_text())["LocalPath"])
    return tree.base / "output" / "tensors"
