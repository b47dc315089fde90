"""Images decoded by processes beside the training, in batches."""

import logging
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from container_train.data.images import ImageDataset, Item
from container_train.distributed.process_group import SINGLE, ProcessGroup

log = logging.getLogger(__name__)

SHARED_MEMORY_SHARE = 0.8
PREFETCH, GPU_PREFETCH = 2, 4  # batches that each process keeps ready: a GPU takes one in some milliseconds

_Decoded = tuple[torch.Tensor, torch.Tensor]  # as the processes hand it over


class Loaded(NamedTuple):
    """A batch: pixels uint8 (N * views, 3, side, side), targets int64 (N,), and those images that cannot be read.

    `bad` has their numbers in the split by the place in the batch.
    """

    pixels: torch.Tensor
    targets: torch.Tensor
    bad: dict[int, int]

    def readable(self, *, borrowed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pixels, of one view, and targets of the other images.

        If the first is `borrowed` from another process, to be mixed with the second, it stays the first: another one
        in its place if it is bad, and none if it is all that is left.
        """
        if not self.bad:
            return self.pixels, self.targets
        kept = [place for place in range(int(borrowed), len(self.targets)) if place not in self.bad]
        if borrowed and kept:
            kept.insert(0, kept[-1] if 0 in self.bad else 0)
        rows = torch.tensor(kept, dtype=torch.int64).to(self.targets.device)
        return self.pixels[rows], self.targets[rows]


def load(images: ImageDataset, batches: Iterable[list[Item]], workers: int, device: torch.device) -> Iterator[Loaded]:
    """Yield these batches, decoded ahead by `workers` processes, on the device. They end with the iterator."""
    gpu = device.type == "cuda"
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=(GPU_PREFETCH if gpu else PREFETCH) if workers else None,
        pin_memory=gpu,
        worker_init_fn=start_decoding,
        # Not the global one: dropout has to see the same numbers whether images are loaded, cached or skipped.
        generator=torch.Generator(),
    )
    side = torch.cuda.Stream(device) if gpu else None
    for pixels, targets in _whole(loader):
        pixels = pixels.flatten(0, 1).permute(0, 3, 1, 2)
        bad = {place: -1 - target for place, target in enumerate(targets.tolist()) if target < 0}
        if side is None:
            yield Loaded(pixels, targets, bad)
            continue
        with torch.cuda.stream(side):  # beside the step before
            pixels, targets = (tensor.to(device, non_blocking=True) for tensor in (pixels, targets))
        current = torch.cuda.current_stream(device)
        current.wait_stream(side)
        for tensor in (pixels, targets):
            tensor.record_stream(current)
        yield Loaded(pixels, targets, bad)


def _whole(loader: Iterable[_Decoded]) -> Iterator[_Decoded]:
    """Yield what the processes decode. Raises RuntimeError, as torch does, also if one ends while it hands over."""
    try:
        yield from loader
    except (ConnectionError, EOFError) as error:
        if "Caught " in str(error):  # in one of them
            raise
        raise RuntimeError(f"DataLoader worker ended unexpectedly: {error}") from error


@dataclass(frozen=True)
class Decoders:
    """The processes that decode for a training process: `wanted` of them, in `free` bytes of /dev/shm.

    They hand batches over there, of which a container has 64 MB unless it was started with more.
    """

    wanted: int
    free: int
    prefetch: int = PREFETCH

    @classmethod
    def of(cls, wanted: int, device: torch.device, group: ProcessGroup = SINGLE) -> "Decoders":
        """Divide the free bytes among the training processes of the host, before any of them uses some."""
        free = _free_shared_memory() // group.local_size
        group.barrier()
        return cls(wanted, free, GPU_PREFETCH if device.type == "cuda" else PREFETCH)

    def processes(self, batch: int, side: int) -> int:
        """Return the number that there is room for, with batches of `batch` images uint8 (3, side, side).

        Each keeps some batches ready, and one is in use. With none, the training process decodes by itself.
        """
        size = batch * 3 * side * side
        fits = max(0, int(self.free * SHARED_MEMORY_SHARE / size) - 1) // self.prefetch
        if fits < self.wanted:
            log.warning(
                "workers: %d instead of %d: %.0f MB of shared memory are free for them, a batch is %.0f MB; start the"
                " container with a larger --shm-size",
                fits, self.wanted, self.free / 1e6, size / 1e6,
            )  # fmt: skip
        return min(fits, self.wanted)


def _free_shared_memory() -> int:
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else sys.maxsize


def start_decoding(_worker: int) -> None:
    """Prepare a decoding process: the training process handles a stop, and ends the others with SIGTERM.

    With the training's own handler they would ignore it, and Python would wait for them forever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
