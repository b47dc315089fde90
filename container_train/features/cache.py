"""The features of all pictures and views that a training will ask for: read where they are, else computed, and kept."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from container_serve.preprocess import Preprocessing
from container_train.data import augmentation, loading
from container_train.data.dataset import Data, ImageDataset
from container_train.distributed import pulse
from container_train.distributed.process_group import ALONE, World
from container_train.errors import Stopped
from container_train.features.extractor import CHECKED, FeatureExtractor
from container_train.features.files import FeatureFile, FeatureFileError, Features, locked
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.progress import track
from container_train.signals import StopFlag

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of what is free: the rest belongs to training and to the check of the exported model
CHUNK = 256  # pictures whose features are written at a time: what a kill costs at most
Part = tuple[str, int]  # a split, and the number of the view of its pictures


class Cache:
    """Fills itself from the folders of `store`, and through `frozen` where they lack something.

    Of several processes each keeps the features of its own pictures only (World.own), so that none is computed twice.
    """

    def __init__(
        self,
        data: Data,
        hp: Hyperparameters,
        frozen: FeatureExtractor,
        store: Store,
        stop: StopFlag,
        decoders: loading.Decoders,
        world: World = ALONE,
    ) -> None:
        self.data, self.hp, self.frozen, self.store, self.stop, self.world = data, hp, frozen, store, stop, world
        self.decoders = decoders

    def parts(self) -> list[Part]:
        """All that training will ask for."""
        views = min(self.hp.augment_views, self.hp.epochs) if self.hp.augment != "none" else 1
        return [("valid", 0), *(("train", view) for view in range(views))]

    def reason_against(self) -> str:
        """Why there can be no cache, or nothing."""
        if self.hp.feature_cache == "off":
            return "as asked"
        if self.frozen.network.backbone is None:
            return "there are no frozen layers in front of the trained ones that could be cut off"
        if self.hp.augment != "none" and not self.hp.augment_views:
            return f"every epoch sees other views of the pictures (augment {self.hp.augment}, augment-views 0)"
        if self.world.size > 1 and any(isinstance(m, _BatchNorm) for m in self.frozen.network.head.modules()):
            return "layers with batch statistics are trained by several processes, which want equal parts of a batch"
        need, free = self._need(self.parts()) * self.world.local_size, psutil.virtual_memory().available
        if need > free * MEMORY_SHARE:
            return f"it would take {need / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of the {free / 1e9:.1f} GB free"
        return ""

    def fill(self) -> dict[Part, Features]:
        """The features of all parts. Raises Stopped; what was written until then is there for the next start."""
        common = {**self.frozen.describe(), "data": self.data.fingerprint}
        found: dict[Part, Features] = {}
        for part in self.parts():
            for folder in self.store.readable:
                features = self._entry(folder, part, common).read()
                if features is not None:
                    log.info("feature cache: %s read from %s", self._words(part), folder)
                    found[part] = features
                    break
        missing = [part for part in self.parts() if part not in found]
        if not missing:
            return found
        place, reason = self.store.place(self._need(missing))
        log.info("feature cache: %s", f"kept in {place}" if place else f"kept in memory only ({reason})")
        for part in missing:
            found[part] = self._kept(self._entry(place, part, common), part) if place else self._in_memory(part)
        return found

    def _entry(self, folder: Path, part: Part, common: dict[str, Any]) -> FeatureFile:
        split, view = part
        augmented = split == "train" and self.hp.augment != "none"
        drawn = f"{self.hp.augment}, seed {self.hp.seed}, view {view}, {augmentation.version()}"
        what = drawn if augmented else "plain"
        fields = {**common, "split": split, "view": what}
        if self.world.size > 1:
            fields["pictures"] = f"every {self.world.size}th from {self.world.rank}"
        return FeatureFile(folder, fields, len(self._pictures(split)), self.frozen.layout)

    def _pictures(self, split: str) -> range:
        """The indices of those that this process keeps."""
        return range(self.world.rank, len(self.data.splits[split]), self.world.size)

    def _words(self, part: Part) -> str:
        view = f", view {part[1] + 1}" if self.hp.augment != "none" and part[0] == "train" else ""
        return f"{len(self._pictures(part[0]))} pictures of {part[0]}{view}"

    def _need(self, parts: list[Part]) -> int:
        return sum(self.frozen.layout.sizes()) * sum(len(self._pictures(split)) for split, _ in parts)

    def _kept(self, entry: FeatureFile, part: Part) -> Features:
        """The part's features in `entry`, by this process or by another that was faster."""
        try:
            with locked(entry, self._go_on):
                features = entry.read()
                if features is not None:
                    log.info("feature cache: %s read from %s", self._words(part), entry.path.parent)
                    return features
                self._choose()
                done = entry.resume(self.frozen.by)
                if done:
                    log.info("feature cache: %d of %s were there already", done, self._words(part))
                for chunk in self._computed(part, done):
                    entry.append(chunk)
                features = entry.read()
            if features is not None:
                return features
            reason = f"{entry.path} does not hold what was written"
        except FeatureFileError as error:
            reason = str(error)
        log.warning("feature cache: kept in memory only, %s", reason)
        return self._in_memory(part)

    def _in_memory(self, part: Part) -> Features:
        self._choose()
        chunks = list(self._computed(part, 0))
        if not chunks:  # more processes than pictures
            return tuple(torch.empty(0, *shape, dtype=dtype) for dtype, shape in self.frozen.layout.features)
        return tuple(torch.cat(column) for column in zip(*chunks, strict=True))

    def _choose(self) -> None:
        self.frozen.choose(first_pictures(self.data, self.frozen.network.preprocessing))

    def _go_on(self) -> None:
        pulse.beat()  # also while it waits for another job that writes the same features
        if self.stop.asked:
            raise Stopped("while the frozen layers ran; nothing was trained since the last checkpoint")

    def _computed(self, part: Part, start: int) -> Iterator[Features]:
        """The features of the part's pictures from `start` on, in chunks."""
        (name, view), began = part, time.monotonic()
        split = self.data.splits[name]
        augment = self.hp.augment if name == "train" else "none"
        spec, batch_size = self.frozen.network.preprocessing, self.frozen.batch
        pictures = ImageDataset(split, spec, augment, self.hp.seed, view)
        rest = self._pictures(name)[start:]
        workers = self.decoders.processes(batch_size, spec.crop)
        loader = loading.loader(pictures, batch_size, workers, self.frozen.device, rest)
        tracked = track(loader, f"frozen layers, {self._words(part)}", len(loader))
        batches: list[Features] = []
        for features in self.frozen.run(batch for batch, _ in tracked):
            self._go_on()
            batches.append(tuple(feature.cpu() for feature in features))
            if len(batches) * batch_size >= CHUNK:
                yield tuple(torch.cat(column) for column in zip(*batches, strict=True))
                batches = []
        if batches:
            yield tuple(torch.cat(column) for column in zip(*batches, strict=True))
        seconds = time.monotonic() - began
        log.info(
            "feature cache: %s in %.1f s, %.1f a second", self._words(part), seconds, len(rest) / max(seconds, 1e-9)
        )


def first_pictures(data: Data, spec: Preprocessing, count: int = CHECKED) -> torch.Tensor:
    """The first training pictures, to see whether two ways to compute their features agree."""
    pictures = ImageDataset(data.splits["train"], spec)
    return torch.stack([pictures[index][0] for index in range(min(len(pictures), count))])
