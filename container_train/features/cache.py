"""The features of all images and views that a training needs: read if they exist, else computed and kept."""

import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from container_serve.preprocess import Preprocessing
from container_train.data import augmentation, loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data, ImageDataset
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import Stopped
from container_train.features.extractor import CHECKED, FeatureExtractor
from container_train.features.files import FeatureFile, FeatureFileError, Features, locked
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.progress import track
from container_train.signals import StopFlag

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the free memory: the rest belongs to training and to the check of the exported model
CHUNK = 256  # images whose features are written at a time: a kill costs at most these
Part = tuple[str, int]  # a split, and the number of the view of its images


@dataclass(eq=False)
class Cache:
    """Reads features from the folders of `store`, and computes missing ones with `extractor`.

    Of several processes each computes the features of its own images only, and gets those of the others from them.
    """

    data: Data
    hp: Hyperparameters
    extractor: FeatureExtractor
    store: Store
    stop: StopFlag
    decoders: loading.Decoders
    group: ProcessGroup = SINGLE

    @functools.cached_property
    def augment(self) -> Augment:
        return Augment.of(self.hp)

    def parts(self) -> list[Part]:
        """List all parts that the training needs."""
        views = min(self.hp.augment_views, self.hp.epochs) if self.augment else 1
        return [("valid", 0), *(("train", view) for view in range(views))]

    def reason_against(self) -> str:
        """Return the reason why there can be no cache; empty if there is none."""
        network = self.extractor.network
        if self.hp.feature_cache == "off":
            return "as asked"
        if network.backbone is None:
            return "there are no frozen layers in front of the trained ones that could be cut off"
        if self.augment and not self.hp.augment_views:
            return f"every epoch sees other views of the images (augment {self.augment}, augment-views 0)"
        images = sum(len(self.data.splits[split]) for split, _ in self.parts()) * self.group.local_size
        need, free = images * self._image_bytes(), psutil.virtual_memory().available
        if need > free * MEMORY_SHARE:
            return f"it would take {need / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of the {free / 1e9:.1f} GB free"
        return ""

    def fill(self) -> dict[Part, Features]:
        """Return the features of all parts. Raises Stopped; the next start finds what was written until then."""
        found: dict[Part, Features] = {}
        for part in self.parts():
            for folder in self.store.readable:
                if part not in found and (features := self._read(self._file(folder, part), part)) is not None:
                    found[part] = features
        missing = [part for part in self.parts() if part not in found]
        if missing:
            place, reason = self.store.place(self._need(missing))
            log.info("feature cache: %s", f"kept in {place}" if place else f"kept in memory only ({reason})")
            for part in missing:
                found[part] = self._kept(self._file(place, part), part) if place else self._in_memory(part)
        gather = self.group.gather_rows
        return {
            part: tuple(gather(feature, len(self.data.splits[part[0]])) for feature in found[part])
            for part in self.parts()
        }

    @functools.cached_property
    def _common(self) -> dict[str, Any]:
        return {**self.extractor.describe(), "data": self.data.fingerprint}

    def _file(self, folder: Path, part: Part) -> FeatureFile:
        split, view = part
        drawn = f"{self.augment}, seed {self.hp.seed}, view {view}, {augmentation.version()}"
        fields = {**self._common, "split": split, "view": drawn if split == "train" and self.augment else "plain"}
        if self.group.size > 1:
            fields["images"] = f"every {self.group.size}th from {self.group.rank}"
        return FeatureFile(folder, fields, len(self._images(split)), self.extractor.sample)

    def _images(self, split: str) -> range:
        """Return the indices of the images whose features this process computes."""
        return range(self.group.rank, len(self.data.splits[split]), self.group.size)

    def _words(self, part: Part) -> str:
        view = f", view {part[1] + 1}" if self.augment and part[0] == "train" else ""
        return f"{len(self._images(part[0]))} images of {part[0]}{view}"

    def _need(self, parts: list[Part]) -> int:
        """Return the bytes of this process's features of `parts`."""
        return self._image_bytes() * sum(len(self._images(split)) for split, _ in parts)

    def _image_bytes(self) -> int:
        return sum(feature.nbytes for feature in self.extractor.sample)

    def _read(self, file: FeatureFile, part: Part) -> Features | None:
        features = file.read()
        if features is not None:
            log.info("feature cache: %s read from %s", self._words(part), file.path.parent)
        return features

    def _kept(self, file: FeatureFile, part: Part) -> Features:
        """Return the part's features from `file`, written by this process or by another that was faster."""
        try:
            with locked(file, self._check_stop):
                if (features := self._read(file, part)) is not None:
                    return features
                self._choose()
                if done := file.resume(self.extractor.by):
                    log.info("feature cache: %d of %s existed already", done, self._words(part))
                for chunk in self._computed(part, done):
                    file.append(chunk)
                if (features := file.read()) is not None:
                    return features
            reason = f"{file.path} does not hold what was written"
        except FeatureFileError as error:
            reason = str(error)
        log.warning("feature cache: kept in memory only, %s", reason)
        return self._in_memory(part)

    def _in_memory(self, part: Part) -> Features:
        self._choose()
        none = tuple(feature[:0] for feature in self.extractor.sample)  # for more processes than images
        return tuple(torch.cat(column) for column in zip(none, *self._computed(part, 0), strict=True))

    def _choose(self) -> None:
        self.extractor.choose(first_images(self.data, self.extractor.network.preprocessing))

    def _check_stop(self) -> None:
        if self.stop.asked:
            raise Stopped("while the frozen layers ran; nothing was trained since the last checkpoint")

    def _computed(self, part: Part, start: int) -> Iterator[Features]:
        """Yield the features of the part's images from `start` on, in chunks."""
        (split, view), started = part, time.monotonic()
        batch, spec = self.extractor.batch, self.extractor.network.preprocessing
        augment = self.augment if split == "train" else None
        images = ImageDataset(self.data.splits[split], spec, augment, self.hp.seed, view)
        indices = list(self._images(split)[start:])
        batches = [indices[first : first + batch] for first in range(0, len(indices), batch)]
        loader = loading.loader(images, batches, self.decoders.processes(batch, spec.crop), self.extractor.device)
        tracked = track(loader, f"frozen layers, {self._words(part)}", len(batches))
        waiting: list[Features] = []
        for number, features in enumerate(self.extractor.run(batch for batch, _ in tracked), 1):
            self._check_stop()
            waiting.append(tuple(feature.cpu() for feature in features))
            if len(waiting) * batch >= CHUNK or number == len(batches):
                yield tuple(torch.cat(column) for column in zip(*waiting, strict=True))
                waiting = []
        seconds = time.monotonic() - started
        rate = len(indices) / max(seconds, 1e-9)
        log.info("feature cache: %s in %.1f s, %.1f a second", self._words(part), seconds, rate)


def first_images(data: Data, spec: Preprocessing, count: int = CHECKED) -> torch.Tensor:
    """Return the first training images, to compare two ways to compute their features."""
    images = ImageDataset(data.splits["train"], spec)
    return torch.stack([images[index][0] for index in range(min(len(images), count))])
