"""The features of all images and views that a training needs: read if they exist, else computed and kept."""

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from container_train.data import augmentation, loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data
from container_train.data.images import ImageDataset, Item
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import Stopped
from container_train.features.extractor import FeatureExtractor
from container_train.features.files import FeatureFile, FeatureFileError, Features, locked
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.progress import track
from container_train.signals import StopFlag

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the free memory: the rest belongs to training and to the check of the exported model
NO_FEATURES = float("-inf")  # in place of those of an image that cannot be read
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
        """Return the features of all parts. Raises Stopped; the next start finds the parts that were whole by then."""
        found: dict[Part, Features] = {}
        for part in self.parts():
            for folder in self.store.readable:
                if part not in found and (features := self._read(self._file(folder, part), part)) is not None:
                    found[part] = features
        missing = [part for part in self.parts() if part not in found]
        if missing:
            images = sum(len(self._images(split)) for split, _ in missing)
            place, reason = self.store.place(self._image_bytes() * images)
            log.info("feature cache: %s", f"kept in {place}" if place else f"kept in memory only ({reason})")
            for _, group in itertools.groupby(missing, lambda part: part[0]):
                parts = list(group)  # the views of one split: an image is decoded once for all of them
                found |= self._kept(place, parts) if place else self._in_memory(parts)
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

    def _words(self, *parts: Part) -> str:
        (split, first), (_, last) = parts[0], parts[-1]
        views = f", view {first + 1}" if self.augment and split == "train" else ""
        if last > first:
            views = f", {len(parts)} views"
        return f"{len(self._images(split))} images of {split}{views}"

    def _image_bytes(self) -> int:
        return sum(feature.nbytes for feature in self.extractor.sample)

    def _read(self, file: FeatureFile, part: Part) -> Features | None:
        features = file.read()
        if features is not None:
            log.info("feature cache: %s read from %s", self._words(part), file.path.parent)
        return features

    def _kept(self, place: Path, parts: Sequence[Part]) -> dict[Part, Features]:
        """Return the parts' features from files, written by this process or by another that was faster."""
        files = {part: self._file(place, part) for part in parts}
        found: dict[Part, Features] = {}
        try:
            with contextlib.ExitStack() as stack:
                for file in files.values():
                    stack.enter_context(locked(file, self._check_stop))
                found = {part: rows for part, file in files.items() if (rows := self._read(file, part)) is not None}
                made = {part: stack.enter_context(file.writing()) for part, file in files.items() if part not in found}
                return found | self._filled(made)
        except FeatureFileError as error:
            log.warning("feature cache: kept in memory only, %s", error)
        return found | self._in_memory([part for part in parts if part not in found])

    def _in_memory(self, parts: Sequence[Part]) -> dict[Part, Features]:
        rows = len(self._images(parts[0][0]))
        empty = {part: tuple(like.new_empty(rows, *like.shape[1:]) for like in self.extractor.sample) for part in parts}
        return self._filled(empty)

    def _check_stop(self) -> None:
        if self.stop.asked:
            raise Stopped("while the frozen layers ran; nothing was trained since the last checkpoint")

    def _filled(self, made: dict[Part, Features]) -> dict[Part, Features]:
        """Compute the features of parts that are views of one split, into these rows, and return them."""
        if not made:
            return made
        self.extractor.choose_on(self.data.splits)
        started, parts, row = time.monotonic(), list(made), 0
        split, views = parts[0][0], tuple(view for _, view in parts)
        indices = self._images(split)
        count = max(1, self.extractor.batch // len(views))
        batches = [indices[first : first + count] for first in range(0, len(indices), count)]
        tracked = track(self._pixels(split, views, batches), f"frozen layers, {self._words(*parts)}", len(batches))
        parts_of = (part for pixels in tracked for part in pixels.split(self.extractor.batch))  # of many views
        for features in self.extractor.run(parts_of):
            self._check_stop()
            for place, whole in enumerate(made.values()):  # the views of an image are one after another
                first = (place - row) % len(views)
                for column, some in zip(whole, features, strict=True):
                    own = some[first :: len(views)]
                    column[(row + first) // len(views) :][: len(own)] = own
            row += len(features[0])
        bad = [place for place, image in enumerate(indices) if self.data.unreadable.is_bad(split, image)]
        for column in (column for whole in made.values() for column in whole):
            column[bad] = NO_FEATURES
        seconds = time.monotonic() - started
        log.info("feature cache: %s in %.1f s, %.1f a second", self._words(*parts), seconds, row / max(seconds, 1e-9))
        return made

    def _pixels(self, split: str, views: tuple[int, ...], batches: Sequence[range]) -> Iterator[torch.Tensor]:
        spec, extractor = self.extractor.network.preprocessing, self.extractor
        images = ImageDataset(self.data.splits, spec, self.augment, self.hp.seed)
        items = ([Item(split, index, views) for index in batch] for batch in batches)
        workers = self.decoders.processes(len(views) * max(1, extractor.batch // len(views)), spec.crop)
        for batch in loading.load(images, items, workers, extractor.device):
            self.data.unreadable.use(split, len(batch.targets), batch.bad.values())
            yield batch.pixels
