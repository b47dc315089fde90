"""The batches that the head of the network is trained on: features, from the cache or computed as they come."""

import itertools
import logging
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from container_train.compute.runtime import Runtime
from container_train.data import loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data
from container_train.data.images import ImageDataset, Item, Normalisation
from container_train.errors import TrainError
from container_train.features.cache import NO_FEATURES, Cache, Part
from container_train.features.extractor import FeatureExtractor
from container_train.features.files import Features
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.model.builder import Network

log = logging.getLogger(__name__)

STATISTICS_BATCHES, STATISTICS_BATCH = 2, 64
CPU = torch.device("cpu")
GPU_SHARE = 0.3  # of the free memory of a GPU that features may take: the rest belongs to training
# Features from the cache, or pixels uint8 (N, 3, side, side); targets (N,). All on the device.
Batch = tuple[Features | torch.Tensor, torch.Tensor]
Pass = tuple[str, int, int]  # a split in an epoch, without so many images


def order(length: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of one epoch, a function of (seed, epoch), so that an interrupted epoch can be resumed."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Source:
    """Batches for the head of the network, from cached features or from the images themselves.

    With frozen layers, epoch e sees view e modulo `augment-views` of every image, whether they are cached or not.
    The training ends before the epoch `end`, by default that of the hyperparameters.
    """

    def __init__(
        self, data: Data, network: Network, hp: Hyperparameters, runtime: Runtime, store: Store | None = None,
        end: int = 0,
    ) -> None:  # fmt: skip
        self.data, self.network, self.hp, self.runtime, self.end = data, network, hp, runtime, end or hp.epochs
        self.device, self.group = device, group = runtime.device, runtime.group
        self.targets = {name: torch.as_tensor(split.targets, device=device) for name, split in data.splits.items()}
        self.images = ImageDataset(data.splits, network.preprocessing, Augment.of(hp), hp.seed)
        self.decoded: Iterator[loading.Loaded] = iter(())
        self.ahead: Pass | None = None  # of which `decoded` has the batches next
        self.epoch = 0
        self.cache: dict[Part, Features] = {}
        self.workers = 0
        self.decoders = loading.Decoders.of(hp.workers, device, group)
        if network.weights == "none" and network.backbone is not None:
            self._estimate_statistics(network.backbone)
            group.broadcast_parameters(network.model)
        self.extractor = FeatureExtractor(
            network, runtime.precision, device, exact=hp.amp == "off",
            images=len(data.splits["train"]) + len(data.splits["valid"]),
        )  # fmt: skip
        cache = Cache(data, hp, self.extractor, store or Store(), runtime, self.decoders)
        reason = next(filter(None, group.gather(cache.reason_against())), "")
        if not reason:
            self.cache = self._placed(cache.fill())
            for (split, _), features in self.cache.items():  # images that have no features could not be read
                missing = torch.nonzero(features[0].flatten(1)[:, 0] == NO_FEATURES).flatten().tolist()
                data.unreadable.use(split, -(-len(features[0]) // group.size), missing)
            data.unreadable.agree(group)
            return
        if hp.feature_cache == "on":
            raise TrainError(f"hyperparameter feature-cache has value 'on', but {reason}; say auto or off")
        log.info("feature cache: off, %s", reason)
        self.extractor.choose_on(data.splits)
        share = -(-hp.batch_size // group.size)
        self.workers = self.decoders.processes(share, network.preprocessing.crop)

    def _estimate_statistics(self, backbone: nn.Module) -> None:
        """Give a backbone with random weights the batch statistics of some training images.

        With the initial ones (mean 0, variance 1) the signal fades on its way through the random layers, and all images
        look alike at the end. The batches have one size, so that the features do not depend on the batch size.
        """
        indices = order(len(self.data.splits["train"]), self.hp.seed, 0).split(STATISTICS_BATCH)
        batches = [[Item("train", index) for index in b.tolist()] for b in indices if len(b) > 1][:STATISTICS_BATCHES]
        spec = self.network.preprocessing
        workers = self.decoders.processes(STATISTICS_BATCH, spec.crop)
        loaded = loading.load(ImageDataset(self.data.splits, spec), batches, workers, self.device)
        normalise = Normalisation(spec, self.device)
        update_bn((normalise(batch.pixels) for batch in loaded), backbone, self.device)

    def _placed(self, cache: dict[Part, Features]) -> dict[Part, Features]:
        """Move the features to a GPU if they fit."""
        if self.device.type != "cuda":
            return cache
        need = sum(feature.nbytes for features in cache.values() for feature in features)
        free, _ = torch.cuda.mem_get_info(self.device)
        if need > GPU_SHARE * free:
            return cache
        log.info("feature cache: %.2f GB of features are on the GPU", need / 1e9)
        return {part: tuple(feature.to(self.device) for feature in features) for part, features in cache.items()}

    @property
    def mixes(self) -> bool:
        """Training mixes each image of a batch with the one before it."""
        return self.hp.mixup > 0 or self.hp.cutmix > 0

    def view(self, epoch: int) -> int:
        """Return the view of the training images that an epoch sees."""
        if not self.images.augment:
            return 0
        few = self.hp.augment_views > 0 and self.network.backbone is not None
        return epoch % self.hp.augment_views if few else epoch

    def training(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Yield this process's share of the batches of one epoch (from 0), without the first `skip` images.

        The last shares may be empty, as are those of an evaluation.
        """
        self.epoch = epoch
        return self._batches(("train", epoch, skip))

    def evaluation(self, split: str) -> Iterator[Batch]:
        """Yield this process's share of the batches of a split, in its order and without augmentation."""
        return self._batches((split, self.epoch, 0))

    def features(self, inputs: Features | torch.Tensor) -> Features:
        """Return the input of the head for the images of a batch: cached, or computed from their pixels."""
        return self.extractor(inputs) if isinstance(inputs, torch.Tensor) else inputs

    def length(self, split: str) -> int:
        """Return the number of images of a split that are not left out."""
        return self.data.unreadable.count(split)

    def indices(self, split: str, epoch: int) -> torch.Tensor:
        """Return the images of a split that are not left out, in the order of an epoch: int64 (N,)."""
        images = torch.from_numpy(self.data.unreadable.remaining(split))
        return images[order(len(images), self.hp.seed, epoch)] if split == "train" else images

    def agree(self) -> None:
        """At the end of an epoch: leave out the images that any process could not read. Raises TrainError."""
        if self.data.unreadable.agree(self.group):
            self.close()  # what is decoded ahead is another order of the images

    def close(self) -> None:
        """End the decoding processes."""
        self.decoded, self.ahead = iter(()), None

    def _batches(self, stage: Pass) -> Iterator[Batch]:
        split, epoch, _ = stage
        part = split, self.view(epoch) if split == "train" else 0
        targets = self.targets[split]
        if part in self.cache:
            for rows, same in zip(self._shares(stage, CPU), self._shares(stage, self.device), strict=True):
                yield tuple(self._rows(feature, rows, same) for feature in self.cache[part]), targets[same]
            return
        if self.ahead != stage:
            self.decoded = loading.load(self.images, self._items(stage), self.workers, self.device)
        self.ahead = None  # until all batches were taken
        shares = list(self._shares(stage, CPU))
        for batch in itertools.islice(self.decoded, sum(len(share) > 0 for share in shares)):
            self.data.unreadable.use(split, len(batch.targets), batch.bad.values())
            yield batch.readable(borrowed=split == "train" and self.mixes and self.group.size > 1)
        self.ahead = self._after(stage)
        side = self.network.preprocessing.crop
        none = torch.zeros(0, 3, side, side, dtype=torch.uint8, device=self.device), targets[:0]
        yield from itertools.repeat(none, sum(len(share) == 0 for share in shares))

    def _rows(self, feature: torch.Tensor, rows: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        """Return rows on the device; `same` are their indices there."""
        if feature.device.type == self.device.type:
            return feature[same]
        return feature[rows].pin_memory().to(self.device, non_blocking=True)

    def _shares(self, stage: Pass, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the indices of this process's images in each batch, on a device."""
        split, epoch, skip = stage
        indices = self.indices(split, epoch)[skip:]
        batches = indices.to(device).split(self.hp.batch_size) if len(indices) else ()
        return (self.group.shard(batch, mixes=split == "train" and self.mixes) for batch in batches)

    def _items(self, stage: Pass | None) -> Iterator[list[Item]]:
        """Yield the images of all batches from `stage` on: what comes next is decoded while a stage ends."""
        while stage is not None:
            split, epoch, _ = stage
            views = (self.view(epoch) if split == "train" else 0,)
            for share in filter(len, self._shares(stage, CPU)):
                yield [Item(split, index, views) for index in share.tolist()]
            stage = self._after(stage)

    def _after(self, stage: Pass) -> Pass | None:
        """Return what a training asks for after `stage`."""
        split, epoch, _ = stage
        if split == "train":
            return "valid", epoch, 0
        return ("train", epoch + 1, 0) if epoch + 1 < self.end else None
