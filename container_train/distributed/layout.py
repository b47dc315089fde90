"""Where the processes of a job are: a host's name and rank, its GPUs, and the environment that each process gets."""

import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container_train import hyperparameters, job
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

ROOT = Path(__file__).resolve().parents[2]

SCRATCH = "BYOC_SCRATCH"  # a folder that the processes of a host share, and that ends with them
PORT = "BYOC_PORT"  # of the first host, for launchers; the next one is for the processes
DEFAULT_PORT = 29400


@dataclass(frozen=True)
class Layout:
    """Where the processes of a job are: on `hosts`, in order, as many on each; `here` is this one's name."""

    hosts: tuple[str, ...]
    here: str
    interface: str
    local: int

    @classmethod
    def of(cls, tree: SageMakerPaths, arguments: Sequence[str]) -> "Layout":
        here, hosts = job.hosts(tree)
        hosts = hosts if here in hosts else [here]
        local = gpus() if hyperparameters.device(arguments) != "cpu" else 0
        return cls(tuple(hosts), here, job.interface(tree), local)

    @property
    def processes(self) -> int:
        """On each host."""
        return max(1, self.local)

    @property
    def size(self) -> int:
        return len(self.hosts) * self.processes

    @property
    def index(self) -> int:
        return self.hosts.index(self.here)

    def environment(self, local_rank: int, scratch: Path) -> dict[str, str]:
        """What torchrun would say, too. Each process sees one GPU."""
        words = {
            "RANK": str(self.index * self.processes + local_rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "MASTER_ADDR": self.hosts[0] if len(self.hosts) > 1 else "127.0.0.1",
            "MASTER_PORT": str(port() + 1),
            SCRATCH: str(scratch),
            # No complaints of torch's about processes that end without a farewell, as all do when one of them fails.
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
            # They are started by the path of a file, and find the packages beside its folder wherever that is.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        if self.interface and len(self.hosts) > 1:
            words |= {
                name: os.environ.get(name, self.interface) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
            }
        elif len(self.hosts) == 1:
            words["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        if self.local:
            words["CUDA_VISIBLE_DEVICES"] = visible(self.local)[local_rank]
        return {**os.environ, **words}


def port() -> int:
    """Raises TrainError."""
    words = os.environ.get(PORT) or str(DEFAULT_PORT)
    if not (words.isascii() and words.isdecimal() and 0 < int(words) < 65535):
        raise TrainError(f"{PORT} has value {words!r}: expected a port from 1 to 65534 (the next one is used, too)")
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
    if there and named is not None:
        return len([word for word in named.split(",") if word.strip()])
    return there


def visible(count: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [word.strip() for word in named.split(",")] if named else [str(number) for number in range(count)]
