"""The processes that train together, one per GPU or one per host without GPUs, and their collectives.

torchrun's environment (RANK, WORLD_SIZE, ...) describes them. With a single process nothing is initialised, and every
method returns what it was given.
"""

import contextlib
import faulthandler
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.timer.file_based_local_timer import FileTimerClient
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from container_train.compute.device import launched
from container_train.distributed.cluster import collective_timeout
from container_train.errors import CollectiveError

# How gloo and nccl word the loss of a peer; gloo raises a plain RuntimeError.
LOST = re.compile(r"(?i)gloo|nccl|connection (closed|reset|refused)|timed out|broken pipe")
GRACE_SECONDS = 10.0  # what hangs in training is first ended by the watchdog, which prints where

# torch 2.13 joins gloo's threads where DistributedDataParallel is freed, and keeps the interpreter's lock, which one of
# them may wait for: both wait forever. So it is never freed; its processes end without the interpreter's last steps.
_NEVER_FREED: list[nn.Module] = []

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank and the number of processes, in total and on this host. The default is a single process."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        return cls(*(int(os.environ.get(name, alone)) for name, alone in names.items()))

    def start(self, device: torch.device) -> None:
        """Wait for all processes. gloo connects CPUs, nccl GPUs. Raises TrainError."""
        if self.size == 1:
            return
        timeout = timedelta(seconds=collective_timeout() + GRACE_SECONDS)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)

    def shutdown(self) -> None:
        """The last collective: from here on no process waits for another."""
        if self.size > 1 and dist.is_initialized():
            self.barrier()
            dist.destroy_process_group()

    @contextlib.contextmanager
    def watchdog(self) -> Iterator[Callable[[], None]]:
        """Within, torchrun's agent kills this process when the given function is not called for the time-out.

        It prints where the process was.
        """
        file, armed = os.environ.get("TORCHELASTIC_TIMER_FILE"), 0.0
        if self.size == 1 or file is None:
            yield lambda: None
            return
        client = FileTimerClient(file, signal.SIGUSR1)
        faulthandler.register(signal.SIGUSR1, chain=True)

        def progressed() -> None:
            nonlocal armed
            if time.time() - armed > 1:  # the pipe to the agent holds some hundred requests, and refuses more
                armed = time.time()
                client.acquire("progress", armed + collective_timeout())

        progressed()
        try:
            yield progressed
        finally:
            with contextlib.suppress(OSError):  # the agent is gone
                client.release("progress")

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """The sum over all processes of each value, in float64."""
        return self.all_reduce_async(torch.tensor(values, dtype=torch.float64))()

    def all_reduce_async(self, values: torch.Tensor) -> Callable[[], list[float]]:
        """Begin the sum over all processes of float64 `values`, in place; the returned function waits for it.

        Values on a GPU are on their way to the CPU when this returns, without waiting for what computes them.
        """
        arrived: Callable[[], Any] = dist.all_reduce(values, async_op=True).wait if self.size > 1 else lambda: None
        if values.is_cuda:
            arrived()  # the GPU's stream waits, not this thread
            device, values = values.device, values.to("cpu", non_blocking=True)
            arrived = launched(device)

        def finish() -> list[float]:
            arrived()
            return values.tolist()

        return finish

    def any(self, *flags: bool) -> list[bool]:
        """For each flag True where any process has set it: the same answer in all of them."""
        return [value > 0 for value in self.all_reduce([float(flag) for flag in flags])]

    def barrier(self) -> None:
        self.all_reduce([0.0])

    def shard(self, indices: torch.Tensor, *, mixes: bool = False) -> torch.Tensor:
        """This process's part of the images of a batch: as many as the others have, or one more or less.

        If the batch `mixes` each image with the one before it, several processes get one more: that before their first.
        """
        parts = indices.tensor_split(self.size)
        own = parts[self.rank]
        if not mixes or self.size == 1 or not len(own):
            return own
        before = sum(map(len, parts[: self.rank])) - 1  # -1: the last of the batch
        return torch.cat([indices[before].reshape(1), own])

    def gather_rows(self, own: torch.Tensor, rows: int) -> torch.Tensor:
        """All `rows` of a tensor on the CPU of which each process has every `size`-th, the first one by its rank."""
        if self.size == 1:
            return own
        whole = own.new_empty(rows, *own.shape[1:])
        for rank in range(self.size):
            part = own.contiguous() if rank == self.rank else whole[rank :: self.size].contiguous()
            dist.broadcast(part.view(torch.uint8), rank)  # gloo does not know all types
            whole[rank :: self.size] = part
        return whole

    def gather(self, content: T) -> list[T]:
        """The content of each process, by rank."""
        found = [content] * self.size
        if self.size > 1:
            dist.all_gather_object(found, content)
        return found

    def broadcast_object(self, content: Any) -> Any:
        """The first process's content, on the CPU."""
        found = [content]
        if self.size > 1:
            dist.broadcast_object_list(found, 0, device=torch.device("cpu"))
        return found[0]

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dense = tensor.contiguous()  # as collectives want it; the layout in memory may be channels last
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def sync_batch_norm(self, module: nn.Module, device: torch.device) -> nn.Module:
        """`module` with batch statistics over the whole batch, which torch has for GPUs only; see average_buffers."""
        if self.size == 1 or not any(isinstance(part, _BatchNorm) for part in module.modules()):
            return module
        if device.type == "cuda":
            # As torch's, and it keeps the activations that timm has in them.
            from timm.layers import convert_sync_batchnorm

            converted: nn.Module = convert_sync_batchnorm(module)
            return converted
        log.info("processes: batch statistics are of each one's part of a batch, as there is no GPU")
        return module

    def data_parallel(self, module: nn.Module, *, accumulates: bool = False) -> nn.Module:
        """`module` with gradients that are averaged over the processes during the backward pass.

        A step is taken by all processes. Its mean is that of the whole batch where a loss is the sum over a process's
        images times `size` / images of the whole batch. With accumulated gradients (no_sync) there is no static graph:
        torch 2.13 would fail in the first step.
        """
        if self.size == 1:
            return module
        parallel = DistributedDataParallel(
            module, forward_sync_buffers=False, gradient_as_bucket_view=True, static_graph=not accumulates
        )
        _NEVER_FREED.append(parallel)
        return parallel

    def no_sync(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within, the gradients of `module`, which `data_parallel` gave, are added up in this process alone."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()

    def average_buffers(self, module: nn.Module) -> None:
        """Give all processes the mean of their running batch statistics."""
        if self.size == 1:
            return
        for part in module.modules():
            if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None:
                for tensor in filter(torch.is_tensor, (part.running_mean, part.running_var)):
                    dist.all_reduce(tensor)
                    tensor.div_(self.size)


SINGLE = ProcessGroup()


@contextlib.contextmanager
def lost_peers() -> Iterator[None]:
    """Within, a collective that fails because another process ended raises CollectiveError."""
    try:
        yield
    except RuntimeError as error:
        words = " ".join(str(error).split())
        if isinstance(error, dist.DistError) or (dist.is_initialized() and LOST.search(words)):
            raise CollectiveError(f"another process of the job is lost or hangs ({words[:200]})") from None
        raise
