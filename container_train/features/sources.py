"""What the trainable rest of the network is fed with: features, from the cache or computed as they come."""

import itertools
import logging
import time
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from container_train.data import loading
from container_train.data.dataset import Data, ImageDataset
from container_train.distributed.process_group import ALONE, World
from container_train.errors import TrainError
from container_train.features.cache import Cache, Part, first_pictures
from container_train.features.extractor import FeatureExtractor
from container_train.features.files import Features
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network
from container_train.model.random_backbone import estimate_statistics
from container_train.signals import StopFlag
from container_train.training.precision import Precision

log = logging.getLogger(__name__)

STATISTICS_BATCHES, STATISTICS_BATCH = 2, 64
Batch = tuple[Features, torch.Tensor]  # inputs of Network.head, targets (N,)


class Order(Sampler[int]):
    """The order of one epoch, a function of (seed, epoch), so that an interrupted epoch can be taken up again."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch, self.skip = length, seed, 0, 0

    def indices(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.length, generator=generator)[self.skip :]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        return max(0, self.length - self.skip)


class Source:
    """Batches for the trainable rest of the network, from cached features or from the pictures themselves.

    With frozen layers, epoch e sees view e modulo `augment-views` of every picture, whether they are cached or not.
    """

    def __init__(
        self,
        data: Data,
        network: Network,
        hyperparameters: Hyperparameters,
        device: torch.device,
        precision: Precision,
        stop: StopFlag,
        store: Store | None = None,
        world: World = ALONE,
    ) -> None:
        self.data, self.network, self.hp, self.world = data, network, hyperparameters, world
        self.device = device
        self.order = Order(len(data.splits["train"]), hyperparameters.seed)
        self.targets = {name: torch.as_tensor(split.targets, device=device) for name, split in data.splits.items()}
        self.backbone_seconds = 0.0  # that the frozen layers took for the newest training batch
        self.cache: dict[Part, Features] = {}
        self.workers = 0
        self.decoders = loading.Decoders.of(hyperparameters.workers, world)
        if network.weights == "none":
            self._estimate_statistics()
            world.same(network.model)
        self.frozen = FeatureExtractor(
            network, precision, device, exact=hyperparameters.amp == "off",
            pictures=len(data.splits["train"]) + len(data.splits["valid"]),
        )  # fmt: skip
        cache = Cache(data, hyperparameters, self.frozen, store or Store(), stop, self.decoders, world)
        reason = next(filter(None, world.gather(cache.reason_against())), "")
        if reason:
            if hyperparameters.feature_cache == "on":
                raise TrainError(f"hyperparameter feature-cache has value 'on', but {reason}; say auto or off")
            log.info("feature cache: off, %s", reason)
            if network.backbone is not None:
                self.frozen.choose(first_pictures(data, network.preprocessing))
            side = network.preprocessing.crop
            self.workers = self.decoders.processes(-(-hyperparameters.batch_size // world.size), side)
        else:
            self.cache = cache.fill()

    def _estimate_statistics(self) -> None:
        # Of as many pictures whatever the size of the batch: features are the same for all of them.
        pictures = ImageDataset(self.data.splits["train"], self.network.preprocessing)
        order = Order(len(pictures), self.hp.seed)
        workers = self.decoders.processes(STATISTICS_BATCH, self.network.preprocessing.crop)
        loader = loading.loader(pictures, STATISTICS_BATCH, workers, self.device, order)
        batches = (batch.to(self.device) for batch, _ in itertools.islice(loader, STATISTICS_BATCHES) if len(batch) > 1)
        count = estimate_statistics(self.network, batches)
        if count:
            log.info("model: batch statistics of the random frozen layers taken from %d batches", count)

    def _view(self, epoch: int) -> int:
        """Which view of the training pictures an epoch sees."""
        if self.hp.augment == "none":
            return 0
        few = self.hp.augment_views > 0 and self.network.backbone is not None
        return epoch % self.hp.augment_views if few else epoch

    def training(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of one epoch (from 0), without the first `skip` pictures."""
        self.order.epoch, self.order.skip = epoch, skip
        self.backbone_seconds = 0.0
        if not len(self.order):  # interrupted after its last step
            return
        view = self._view(epoch)
        if ("train", view) in self.cache:
            for indices in self.order.indices().split(self.hp.batch_size):
                yield self._cached(("train", view), indices)
            return
        if self.world.size > 1:
            yield from self._shares(
                ImageDataset(
                    self.data.splits["train"], self.network.preprocessing, self.hp.augment, self.hp.seed, view
                ),
                self.order.indices(),
            )
            return
        pictures = ImageDataset(
            self.data.splits["train"], self.network.preprocessing, self.hp.augment, self.hp.seed, view
        )
        for batch, targets in loading.loader(pictures, self.hp.batch_size, self.workers, self.device, self.order):
            started = time.perf_counter()
            features = self.frozen(batch)
            self.backbone_seconds = time.perf_counter() - started
            yield features, targets.to(self.device, non_blocking=True)

    def evaluation(self, split: str) -> Iterator[Batch]:
        """The batches of a split, in its order and without augmentation."""
        if (split, 0) in self.cache:
            for indices in torch.arange(len(self.data.splits[split])).split(self.hp.batch_size):
                yield self._cached((split, 0), indices)
            return
        pictures = ImageDataset(self.data.splits[split], self.network.preprocessing)
        if self.world.size > 1:
            yield from self._shares(pictures, torch.arange(len(pictures)))
            return
        for batch, targets in loading.loader(pictures, self.hp.batch_size, self.workers, self.device):
            yield self.frozen(batch), targets.to(self.device, non_blocking=True)

    def _shares(self, pictures: ImageDataset, indices: torch.Tensor) -> Iterator[Batch]:
        """This process's part of each batch; the last may have none for it, which is a batch of no pictures."""
        shares = [self.world.share(batch).tolist() for batch in indices.split(self.hp.batch_size)]
        some = [share for share in shares if share]
        loader = loading.loader(pictures, self.hp.batch_size, self.workers, self.device, batches=some)
        for batch, targets in loader:
            started = time.perf_counter()
            features = self.frozen(batch)
            self.backbone_seconds = time.perf_counter() - started
            yield features, targets.to(self.device, non_blocking=True)
        yield from [((), torch.empty(0, dtype=torch.long, device=self.device))] * (len(shares) - len(some))

    def _cached(self, part: Part, indices: torch.Tensor) -> Batch:
        indices = self.world.own(indices)
        targets = self.targets[part[0]][indices.to(self.device)]
        rows = indices // self.world.size  # of the pictures that are kept here
        return tuple(feature[rows].to(self.device) for feature in self.cache[part]), targets
