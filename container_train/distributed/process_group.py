"""The processes of a job, one for each GPU or, without GPUs, one for each host, and what they say to each other.

A job of one process has no process group, and every method here gives back what it was given. Processes are told of
each other by the environment that torchrun uses, too (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR,
MASTER_PORT); `launch` starts them so.

Gradients are added up by `reduce_gradients` instead of DistributedDataParallel, which takes the mean over processes: it
would be wrong as soon as they have different numbers of pictures of a batch, and would want a step of those that have
none.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from container_train.distributed import pulse
from container_train.distributed.layout import SCRATCH
from container_train.errors import PeerLost, TrainError

# No limit to speak of: one process may read its features while another computes them, and one that is gone or hangs is
# found out by `launch`.
TIMEOUT = timedelta(days=7)

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """This process and how many there are, in all and on this host. As it is made: one that is alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    scratch: Path | None = None

    @classmethod
    def from_environment(cls) -> "World":
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, size, local_rank, local_size = (
            int(os.environ.get(name, default)) for name, default in zip(names, "0101", strict=True)
        )
        if size > 1 and not (os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT")):
            raise TrainError("RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT: set both, or unset all")
        scratch = os.environ.get(SCRATCH)
        return cls(rank, size, local_rank, local_size, Path(scratch) if scratch else None)

    def start(self, device: torch.device) -> None:
        """Wait for all others. gloo joins CPUs, nccl GPUs."""
        if self.size > 1:
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            _or_lost(lambda: dist.init_process_group(backend, timeout=TIMEOUT))

    def leave(self) -> None:
        """The last time that the processes meet: from here on each is alone."""
        if self.size > 1 and dist.is_initialized():
            self.meet()
            pulse.alone()
            dist.destroy_process_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes of each number, in float64."""
        return self.start_sum(values)()

    def start_sum(self, values: Sequence[float]) -> Callable[[], list[float]]:
        """`sum` in two parts, so that other work is done meanwhile: what it gives back waits for the sums."""
        if self.size == 1:
            return lambda: list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        work = _or_lost(lambda: dist.all_reduce(tensor, async_op=True))

        def finish() -> list[float]:
            _or_lost(work.wait)
            return [float(value) for value in tensor]

        return finish

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set in any process: the same answer in all of them."""
        return [value > 0 for value in self.sum([float(flag) for flag in flags])]

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.sum([0.0])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within, a GPU computes what others take part in, as batch statistics over the whole batch are."""
        if self.size == 1 or not torch.cuda.is_initialized():
            yield
            return
        try:
            with pulse.waiting():
                yield
        except dist.DistError as error:
            raise _lost(error) from None

    def share(self, indices: torch.Tensor) -> torch.Tensor:
        """This process's part of the pictures of a batch: as many as the others have, or one more or less."""
        return indices.tensor_split(self.size)[self.rank]

    def own(self, indices: torch.Tensor) -> torch.Tensor:
        """Those pictures of a batch whose features this process keeps: every `size`-th of the split."""
        return indices if self.size == 1 else indices[indices % self.size == self.rank]

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; None counts as zero."""
        if self.size == 1:
            return
        kept = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in kept])
        _or_lost(lambda: dist.all_reduce(flat))
        for parameter, gradient in zip(kept, flat.split([p.numel() for p in kept]), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def same(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dense = tensor.contiguous()  # as collectives want it; the layout in memory may be channels last
                _or_lost(partial(dist.broadcast, dense, 0))
                tensor.copy_(dense)

    def synced(self, rest: nn.Module, device: torch.device) -> nn.Module:
        """`rest` with batch statistics over the whole batch. torch has that for GPUs only; see average_statistics."""
        if self.size == 1 or not any(isinstance(m, _BatchNorm) for m in rest.modules()):
            return rest
        if device.type == "cuda":
            whole: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(rest)
            return whole
        log.info("processes: batch statistics are of each one's part of a batch, as there is no GPU")
        return rest

    def average_statistics(self, module: nn.Module) -> None:
        """Give all processes the mean of their running batch statistics."""
        if self.size == 1:
            return
        for part in module.modules():
            if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None:
                for tensor in filter(torch.is_tensor, (part.running_mean, part.running_var)):
                    _or_lost(partial(dist.all_reduce, tensor))
                    tensor.div_(self.size)

    def gather(self, text: str) -> list[str]:
        """What each process says, by rank."""
        if self.size == 1:
            return [text]
        found: list[Any] = [None] * self.size
        _or_lost(lambda: dist.all_gather_object(found, text))
        return [str(item) for item in found]

    def from_first(self, content: dict[str, Any] | None) -> dict[str, Any] | None:
        """What the first process has, a checkpoint's content, to all of them."""
        if self.size == 1:
            return content
        buffer = io.BytesIO()
        if self.rank == 0 and content is not None:
            torch.save(content, buffer)
        length = torch.tensor([buffer.tell()])
        _or_lost(lambda: dist.broadcast(length, 0))
        if not int(length):
            return None
        body = torch.frombuffer(bytearray(buffer.getvalue() or int(length)), dtype=torch.uint8)
        _or_lost(lambda: dist.broadcast(body, 0))
        if self.rank == 0:
            return content
        received: dict[str, Any] = torch.load(io.BytesIO(body.numpy().tobytes()), map_location="cpu", weights_only=True)
        return received


ALONE = World()


def _or_lost(act: Callable[[], T]) -> T:
    """A collective fails when another process is gone, with words that name a socket at best.

    On a GPU it only begins when it is asked for; its end is waited for here, where it is known that others are late.
    """
    try:
        with pulse.waiting():
            done = act()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            return done
    except RuntimeError as error:
        raise _lost(error) from None


def _lost(error: RuntimeError) -> Exception:
    """What a failed collective means: mostly the end of another process, or something of this one's own GPU."""
    words = str(error).strip()
    if isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError) or "out of memory" in words:
        return error
    return PeerLost(f"another process of the job is gone ({words.splitlines()[0][:200]})")
