"""The batches that the head of the network is trained on: features, from the cache or computed as they come."""

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from container_train.data import loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data, ImageDataset
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import TrainError
from container_train.features.cache import Cache, Part, first_images
from container_train.features.extractor import FeatureExtractor
from container_train.features.files import Features
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network
from container_train.signals import StopFlag
from container_train.training.precision import Precision

log = logging.getLogger(__name__)

STATISTICS_BATCHES, STATISTICS_BATCH = 2, 64
Batch = tuple[Features, torch.Tensor]  # inputs of Network.head, targets (N,)


def order(length: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of one epoch, a function of (seed, epoch), so that an interrupted epoch can be resumed."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


@dataclass(eq=False)
class Source:
    """Batches for the head of the network, from cached features or from the images themselves.

    With frozen layers, epoch e sees view e modulo `augment-views` of every image, whether they are cached or not.
    """

    data: Data
    network: Network
    hp: Hyperparameters
    device: torch.device
    precision: Precision
    stop: StopFlag
    store: Store | None = None
    group: ProcessGroup = SINGLE

    def __post_init__(self) -> None:
        data, network, hp, group = self.data, self.network, self.hp, self.group
        self.targets = {name: torch.as_tensor(split.targets, device=self.device) for name, split in data.splits.items()}
        self.backbone_seconds = 0.0  # that the frozen layers took for the newest batch
        self.cache: dict[Part, Features] = {}
        self.workers = 0
        self.decoders = loading.Decoders.of(hp.workers, group)
        if network.weights == "none" and network.backbone is not None:
            self._estimate_statistics(network.backbone)
            group.broadcast_parameters(network.model)
        self.extractor = FeatureExtractor(
            network, self.precision, self.device, exact=hp.amp == "off",
            images=len(data.splits["train"]) + len(data.splits["valid"]),
        )  # fmt: skip
        cache = Cache(data, hp, self.extractor, self.store or Store(), self.stop, self.decoders, group)
        reason = next(filter(None, group.gather(cache.reason_against())), "")
        if not reason:
            self.cache = cache.fill()
            return
        if hp.feature_cache == "on":
            raise TrainError(f"hyperparameter feature-cache has value 'on', but {reason}; say auto or off")
        log.info("feature cache: off, %s", reason)
        if network.backbone is not None:
            self.extractor.choose(first_images(data, network.preprocessing))
        share = -(-hp.batch_size // group.size)
        self.workers = self.decoders.processes(share, network.preprocessing.crop)

    def _estimate_statistics(self, backbone: nn.Module) -> None:
        """Give a backbone with random weights the batch statistics of some training images.

        With the initial ones (mean 0, variance 1) the signal fades on its way through the random layers, and all images
        look alike at the end. The batches have one size, so that the features do not depend on the batch size.
        """
        images = ImageDataset(self.data.splits["train"], self.network.preprocessing)
        batches = [b.tolist() for b in order(len(images), self.hp.seed, 0).split(STATISTICS_BATCH) if len(b) > 1]
        workers = self.decoders.processes(STATISTICS_BATCH, self.network.preprocessing.crop)
        update_bn(loading.loader(images, batches[:STATISTICS_BATCHES], workers, self.device), backbone, self.device)

    @property
    def mixes(self) -> bool:
        """Training mixes each image of a batch with the one before it."""
        return self.hp.mixup > 0 or self.hp.cutmix > 0

    def view(self, epoch: int) -> int:
        """Return the view of the training images that an epoch sees."""
        if not Augment.of(self.hp):
            return 0
        few = self.hp.augment_views > 0 and self.network.backbone is not None
        return epoch % self.hp.augment_views if few else epoch

    def training(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Yield the batches of one epoch (from 0), without the first `skip` images."""
        indices = order(len(self.data.splits["train"]), self.hp.seed, epoch)[skip:]
        return self._batches(("train", self.view(epoch)), indices)

    def evaluation(self, split: str) -> Iterator[Batch]:
        """Yield the batches of a split, in its order and without augmentation."""
        return self._batches((split, 0), torch.arange(len(self.data.splits[split])))

    def _batches(self, part: Part, indices: torch.Tensor) -> Iterator[Batch]:
        """Yield this process's share of each batch, see ProcessGroup.shard; the last ones may be empty."""
        (split, view), self.backbone_seconds = part, 0.0
        batches = indices.split(self.hp.batch_size) if len(indices) else ()
        shares = [self.group.shard(b, mixes=split == "train" and self.mixes) for b in batches]
        if part in self.cache:
            for rows in shares:
                inputs = tuple(feature[rows].to(self.device) for feature in self.cache[part])
                yield inputs, self.targets[split][rows.to(self.device)]
            return
        augment = Augment.of(self.hp) if split == "train" else None
        images = ImageDataset(self.data.splits[split], self.network.preprocessing, augment, self.hp.seed, view)
        own = [share.tolist() for share in shares if len(share)]
        for inputs, targets in loading.loader(images, own, self.workers, self.device):
            started = time.perf_counter()
            features = self.extractor(inputs)
            self.backbone_seconds = time.perf_counter() - started
            yield features, targets.to(self.device, non_blocking=True)
        none = tuple(feature[:0].to(self.device) for feature in self.extractor.sample), self.targets[split][:0]
        yield from itertools.repeat(none, len(shares) - len(own))
