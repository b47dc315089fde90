"""Images decoded by processes beside the training, in batches."""

import logging
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from container_train.data.dataset import ImageDataset
from container_train.distributed.process_group import SINGLE, ProcessGroup

log = logging.getLogger(__name__)

SHARED_MEMORY_SHARE = 0.8


def loader(
    images: ImageDataset, batches: Sequence[list[int]], workers: int, device: torch.device
) -> DataLoader[tuple[torch.Tensor, int]]:
    """Load these batches of images and their targets, decoded by `workers` processes."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=start_decoding,
        # Not the global one: dropout has to see the same numbers whether images are loaded, cached or skipped.
        generator=torch.Generator(),
    )


@dataclass(frozen=True)
class Decoders:
    """The processes that decode for a training process: `wanted` of them, in `free` bytes of /dev/shm.

    They hand batches over there, of which a container has 64 MB unless it was started with more.
    """

    wanted: int
    free: int

    @classmethod
    def of(cls, wanted: int, group: ProcessGroup = SINGLE) -> "Decoders":
        """Divide the free bytes among the training processes of the host, before any of them uses some."""
        free = _free_shared_memory() // group.local_size
        group.barrier()
        return cls(wanted, free)

    def processes(self, batch: int, side: int) -> int:
        """Return the number that there is room for, with batches of `batch` images float32 (3, side, side).

        Each keeps two batches ready, and one is in use. With none, the training process decodes by itself.
        """
        size = batch * 3 * side * side * 4
        fits = max(0, int(self.free * SHARED_MEMORY_SHARE / size) - 1) // 2
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
