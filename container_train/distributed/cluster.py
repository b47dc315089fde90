"""The hosts and GPUs of a job, and what its environment says of them; known without importing torch."""

import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container_train import command_line, job
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

SCRATCH = "BYOC_SCRATCH"  # a folder that the processes of a host share, and that ends with them
PORT = "BYOC_PORT"  # of the store of torchrun's agents, on the first host
TIMEOUT = "BYOC_COLLECTIVE_TIMEOUT"  # s


@dataclass(frozen=True)
class Cluster:
    """The hosts of a job by rank, the index of this one, and the GPUs of each that are used."""

    hosts: list[str]
    index: int
    gpus: int

    @classmethod
    def of(cls, tree: SageMakerPaths, arguments: Sequence[str]) -> "Cluster":
        here, hosts = job.hosts(tree)
        hosts = hosts if here in hosts else [here]
        return cls(hosts, hosts.index(here), gpus() if command_line.device(arguments) != "cpu" else 0)

    @property
    def processes(self) -> int:
        """On each host."""
        return max(1, self.gpus)

    @property
    def size(self) -> int:
        return len(self.hosts) * self.processes


def collective_timeout() -> int:
    """In seconds: how long a process waits for others, and how long a training step may take. Raises TrainError."""
    return variable(TIMEOUT, 1800, 10**7)


def variable(name: str, default: int, most: int) -> int:
    """Return the value of an environment variable. Raises TrainError."""
    words = os.environ.get(name) or str(default)
    if not (words.isascii() and words.isdecimal() and 0 < int(words) <= most):
        raise TrainError(f"{name} has value {words!r}: expected an integer from 1 to {most}")
    return int(words)


def usable(interface: str) -> str:
    """Return the network interface where this host has it; else, after a warning, nothing: gloo and nccl choose one.

    With one that is not there they end with a line of their source code.
    """
    there = [name for _, name in socket.if_nameindex()]
    if not interface or interface in there:
        return interface
    print(
        f"warning: resourceconfig.json: network_interface_name {interface!r} is not an interface of this host (it has"
        f" {', '.join(there)}): using the default one",
        file=sys.stderr,
        flush=True,
    )
    return ""


def gpus() -> int:
    """NVIDIA GPUs that this container sees."""
    there = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len([word for word in named.split(",") if word.strip()]) if there and named is not None else there
