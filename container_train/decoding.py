"""Pictures decoded beside the training, by processes, in batches."""

import logging
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from container_train.data import Pictures

log = logging.getLogger(__name__)

SHARED_MEMORY_SHARE = 0.8


def loader(
    pictures: Pictures,
    batch: int,
    workers: int,
    device: torch.device,
    order: Sampler[int] | Iterable[int] | None = None,
    batches: Sequence[list[int]] | None = None,
) -> DataLoader[tuple[torch.Tensor, int]]:
    """Batches of `batch` pictures and their targets, in `order` (None: the split's own), by `workers` processes.

    `batches` are taken as they are, whatever `batch` and `order` say.
    """
    return DataLoader(
        pictures,
        batch_size=batch if batches is None else 1,
        sampler=order,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=start_decoding,
        # Not the global one: dropout has to see the same numbers whether pictures are loaded, cached or skipped.
        generator=torch.Generator(),
    )


def processes(wanted: int, batch: int, side: int, free: int | None = None) -> int:
    """How many processes decode: as many as wanted, or as their batches (float32) fit into `free` bytes (None: look).

    They hand batches over in /dev/shm, of which a container has 64 MB unless it was started with more. Each keeps two
    batches ready, and one is in use. Without room for one process the training process decodes by itself.
    """
    size = batch * 3 * side * side * 4
    free = _free_shared_memory() if free is None else free
    fits = max(0, int(free * SHARED_MEMORY_SHARE / size) - 1) // 2
    if fits < wanted:
        log.warning(
            "workers: %d instead of %d, for want of shared memory (%.0f MB free, a batch is %.0f MB): --shm-size",
            fits, wanted, free / 1e6, size / 1e6,
        )  # fmt: skip
    return min(fits, wanted)


def _free_shared_memory() -> int:
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else sys.maxsize


def start_decoding(_worker: int) -> None:
    """Prepare a decoding process. A stop is the training process's to handle, but its end has to be theirs, too:

    Python ends what is left of them with SIGTERM and waits, for ever if they took that for a wish to save a checkpoint.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
