"""Processes of a test that form a group over gloo."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from container_train.distributed.process_group import ProcessGroup
from tests.contract.serving import free_port

T = TypeVar("T")


def in_processes(size: int, function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call `function(group, *arguments)` in so many processes, and return their results by rank."""
    with ProcessPoolExecutor(size, multiprocessing.get_context("spawn")) as pool:
        port = free_port()
        calls = [pool.submit(_call, rank, size, port, function, *arguments) for rank in range(size)]
        return [call.result() for call in calls]


def _call(rank: int, size: int, port: int, function: Callable[..., T], *arguments: Any) -> T:
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    group = ProcessGroup.from_environment()
    group.start(torch.device("cpu"))
    result = function(group, *arguments)
    group.shutdown()
    return result
