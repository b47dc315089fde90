"""What the frozen layers make of every picture, computed once and kept in memory."""

import itertools
import logging
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Sampler

from container_train.data import Data, Pictures, Split
from container_train.errors import Stopped, TrainError
from container_train.hyperparameters import Hyperparameters
from container_train.labels import SPLITS
from container_train.model import Network
from container_train.precision import Precision
from container_train.progress import track
from container_train.signals import StopFlag

log = logging.getLogger(__name__)

STATISTICS_BATCHES = 2
SHARED_MEMORY_SHARE = 0.8
MEMORY_SHARE = 0.4  # of what is free: the rest belongs to training and to the check of the exported model
Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]  # inputs of Network.rest, targets (N,)


class Order(Sampler[int]):
    """The order of one epoch; a function of (seed, epoch), so that an interrupted epoch can be taken up again."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch, self.skip = length, seed, 0, 0

    def indices(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.length, generator=generator)[self.skip :]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        return self.length - self.skip


class Source:
    """Batches for the trainable rest of the network, from cached features or from the pictures themselves."""

    def __init__(
        self,
        data: Data,
        network: Network,
        hyperparameters: Hyperparameters,
        device: torch.device,
        precision: Precision,
        stop: StopFlag,
    ) -> None:
        self.data, self.network, self.hp = data, network, hyperparameters
        self.device, self.precision, self.stop = device, precision, stop
        self.order = Order(len(data.splits["train"]), hyperparameters.seed)
        self.workers = decoding_processes(hyperparameters, network.preprocessing.crop, _free_shared_memory())
        self.seconds = 0.0
        self.prefix_seconds = 0.0  # that the frozen layers took for the newest training batch
        self.cache: dict[str, tuple[torch.Tensor, ...]] = {}
        if network.weights == "none":
            self._estimate_statistics()
        reason = self._reason_against_cache()
        if reason:
            if hyperparameters.feature_cache == "on":
                raise TrainError(f"hyperparameter feature-cache has value 'on', but {reason}; say auto or off")
            log.info("feature cache: off, %s", reason)
        else:
            started = time.monotonic()
            self.cache = {split: self._run_prefix(data.splits[split]) for split in SPLITS[:2]}
            self.seconds = time.monotonic() - started
            pictures = sum(len(data.splits[split]) for split in self.cache)
            log.info(
                "feature cache: %d pictures in %.1f s, %.1f a second",
                pictures,
                self.seconds,
                pictures / self.seconds,
            )

    @torch.no_grad()
    def _estimate_statistics(self) -> None:
        """Give a random frozen backbone the batch statistics of some training pictures.

        With the initial ones (mean 0, variance 1) the signal dies out on its way through the random layers, and all
        pictures look alike at the end.
        """
        frozen = [
            module
            for module in self.network.model.modules()
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters())
        ]
        if not frozen:
            return
        momenta = [module.momentum for module in frozen]
        self.network.eval_mode()
        for module in frozen:
            module.reset_running_stats()
            module.momentum = None  # the plain mean over the batches
            module.train()
        order = Order(len(self.data.splits["train"]), self.hp.seed)
        loader = self._loader(Pictures(self.data.splits["train"], self.network.preprocessing), order)
        for pictures, _ in itertools.islice(loader, STATISTICS_BATCHES):
            self.network.model(pictures.to(self.device))
        for module, momentum in zip(frozen, momenta, strict=True):
            module.momentum = momentum
            module.eval()
        log.info("model: batch statistics of the random frozen layers taken from %d batches", STATISTICS_BATCHES)

    def _reason_against_cache(self) -> str:
        if self.hp.feature_cache == "off":
            return "as asked"
        if self.network.prefix is None:
            return "there are no frozen layers in front of the trained ones that could be cut off"
        if self.hp.augment != "none":
            return f"every epoch sees other views of the pictures (augment {self.hp.augment})"
        side = self.network.preprocessing.crop
        each = 4 * sum(feature.numel() for feature in self._features(torch.zeros(1, 3, side, side)))  # float32
        need = each * sum(len(self.data.splits[split]) for split in SPLITS[:2])
        free = psutil.virtual_memory().available
        if need > free * MEMORY_SHARE:
            return f"it would take {need / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of the {free / 1e9:.1f} GB free"
        return ""

    def _run_prefix(self, split: Split) -> tuple[torch.Tensor, ...]:
        parts: list[tuple[torch.Tensor, ...]] = []
        loader = self._loader(Pictures(split, self.network.preprocessing))
        for pictures, _ in track(loader, f"frozen layers, {split.name}", len(loader)):
            if self.stop.asked:
                raise Stopped("while the frozen layers ran; nothing was trained since the last checkpoint")
            parts.append(tuple(feature.float().cpu() for feature in self._features(pictures)))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _features(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pictures = pictures.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        if self.network.prefix is None:
            return (pictures,)
        # no_grad, not inference_mode: what comes out is input to layers that are trained.
        with torch.no_grad(), self.precision.autocast():
            features: tuple[torch.Tensor, ...] = self.network.prefix(pictures)
        return features

    def _loader(self, pictures: Pictures, order: Order | None = None) -> DataLoader[tuple[torch.Tensor, int]]:
        return DataLoader(
            pictures,
            batch_size=self.hp.batch_size,
            sampler=order,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=start_decoding,
            # Not the global one: dropout has to see the same numbers whether pictures are loaded, cached or skipped.
            generator=torch.Generator(),
        )

    def training(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of one epoch (from 0), without the first `skip` pictures."""
        self.order.epoch, self.order.skip = epoch, skip
        self.prefix_seconds = 0.0
        if self.cache:
            for indices in self.order.indices().split(self.hp.batch_size):
                yield self._cached("train", indices)
            return
        pictures = Pictures(self.data.splits["train"], self.network.preprocessing, self.hp.augment, self.hp.seed)
        pictures.epoch = epoch
        for batch, targets in self._loader(pictures, self.order):
            started = time.perf_counter()
            features = self._features(batch)
            self.prefix_seconds = time.perf_counter() - started
            yield features, targets.to(self.device, non_blocking=True)

    def evaluation(self, split: str) -> Iterator[Batch]:
        """The batches of a split, in its order and without augmentation."""
        if split in self.cache:
            for indices in torch.arange(len(self.data.splits[split])).split(self.hp.batch_size):
                yield self._cached(split, indices)
            return
        for batch, targets in self._loader(Pictures(self.data.splits[split], self.network.preprocessing)):
            yield self._features(batch), targets.to(self.device, non_blocking=True)

    def _cached(self, split: str, indices: torch.Tensor) -> Batch:
        targets = torch.as_tensor(self.data.splits[split].targets)[indices]
        return tuple(feature[indices].to(self.device) for feature in self.cache[split]), targets.to(self.device)


def decoding_processes(hyperparameters: Hyperparameters, side: int, free: int) -> int:
    """How many processes decode: as many as asked for, or as their batches (float32) fit into `free` bytes.

    They hand batches over in /dev/shm, of which a container has 64 MB unless it was started with more. Each keeps two
    batches ready, and one is in use. Without room for one process the training process decodes by itself.
    """
    batch = hyperparameters.batch_size * 3 * side * side * 4
    fits = max(0, int(free * SHARED_MEMORY_SHARE / batch) - 1) // 2
    if fits < hyperparameters.workers:
        log.warning(
            "workers: %d instead of %d, for want of shared memory (%.0f MB free, a batch is %.0f MB): --shm-size",
            fits, hyperparameters.workers, free / 1e6, batch / 1e6,
        )  # fmt: skip
    return min(fits, hyperparameters.workers)


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
