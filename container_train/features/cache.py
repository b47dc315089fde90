"""The features of all images and views that a training needs: read if they exist, else computed and kept."""

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from container_train.compute.runtime import Runtime
from container_train.data import augmentation, loading
from container_train.data.augmentation import Augment
from container_train.data.dataset import Data
from container_train.data.images import ImageDataset, Item
from container_train.errors import Stopped
from container_train.features.extractor import FeatureExtractor
from container_train.features.files import FeatureFile, FeatureFileError, Features, locked
from container_train.features.location import Store
from container_train.hyperparameters import Hyperparameters
from container_train.progress import track

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the free memory: the rest belongs to training and to the check of the exported model
CHUNK = 256  # features of images that are written at a time
NO_FEATURES = float("-inf")  # in place of those of an image that cannot be read
Part = tuple[str, int]  # a split, and the number of the view of its images


class Cache:
    """Reads features from the folders of `store`, and computes missing ones with `extractor`.

    Of several processes each computes the features of its own images only, and gets those of the others from them.
    """

    def __init__(
        self, data: Data, hp: Hyperparameters, extractor: FeatureExtractor, store: Store, runtime: Runtime,
        decoders: loading.Decoders,
    ) -> None:  # fmt: skip
        self.data, self.hp, self.extractor, self.store, self.decoders = data, hp, extractor, store, decoders
        self.stop, self.group, self.augment = runtime.stop, runtime.group, Augment.of(hp)

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
                if left := [part for part in parts if part not in found]:
                    self.extractor.choose_on(self.data.splits)
                    self._write([files[part] for part in left], left)
                    found |= {part: rows for part in left if (rows := files[part].read()) is not None}
        except FeatureFileError as error:
            log.warning("feature cache: kept in memory only, %s", error)
        left = [part for part in parts if part not in found]
        return found | (self._in_memory(left) if left else {})

    def _write(self, files: Sequence[FeatureFile], parts: Sequence[Part]) -> None:
        """Add to each part's file what it lacks. Raises Stopped, FeatureFileError; the rows so far stay."""
        done = min(file.done() for file in files)
        for file in files:
            file.resume(done)
        if done:
            log.info("feature cache: %d of %s existed already", done, self._words(*parts))
        for chunk in self._computed(parts, done):
            for file, features in zip(files, chunk, strict=True):
                file.append(features)

    def _in_memory(self, parts: Sequence[Part]) -> dict[Part, Features]:
        self.extractor.choose_on(self.data.splits)
        rows, done = len(self._images(parts[0][0])), 0
        found = {part: tuple(like.new_empty(rows, *like.shape[1:]) for like in self.extractor.sample) for part in parts}
        for chunk in self._computed(parts, 0):
            for whole, features in zip(found.values(), chunk, strict=True):
                for column, some in zip(whole, features, strict=True):
                    column[done : done + len(some)] = some
            done += len(chunk[0][0])
        return found

    def _check_stop(self) -> None:
        if self.stop.asked:
            raise Stopped("while the frozen layers ran; nothing was trained since the last checkpoint")

    def _computed(self, parts: Sequence[Part], start: int) -> Iterator[list[Features]]:
        """Yield the features of each of the parts, views of one split, in chunks from the image `start` on."""
        started, (split, _) = time.monotonic(), parts[0]
        views = tuple(view for _, view in parts)
        indices = self._images(split)[start:]
        count = max(1, self.extractor.batch // len(views))
        batches = [indices[first : first + count] for first in range(0, len(indices), count)]
        tracked = track(self._pixels(split, views, batches), f"frozen layers, {self._words(*parts)}", len(batches))
        waiting: list[Features] = []
        rows = written = 0
        parts_of = (part for pixels in tracked for part in pixels.split(self.extractor.batch))  # of many views
        for features in self.extractor.run(parts_of):
            self._check_stop()
            waiting.append(features)
            rows += len(features[0])
            if rows % len(views) == 0 and (rows >= CHUNK or written + rows == len(indices) * len(views)):
                whole = [torch.cat(column) for column in zip(*waiting, strict=True)]
                for place, image in enumerate(indices[written // len(views) : (written + rows) // len(views)]):
                    if self.data.unreadable.is_bad(split, image):
                        for column in whole:
                            column[place * len(views) : (place + 1) * len(views)] = NO_FEATURES
                yield [tuple(column[view :: len(views)] for column in whole) for view in range(len(views))]
                written, rows, waiting = written + rows, 0, []
        seconds = time.monotonic() - started
        rate = len(indices) * len(views) / max(seconds, 1e-9)
        log.info("feature cache: %s in %.1f s, %.1f a second", self._words(*parts), seconds, rate)

    def _pixels(self, split: str, views: tuple[int, ...], batches: Sequence[range]) -> Iterator[torch.Tensor]:
        spec, extractor = self.extractor.network.preprocessing, self.extractor
        images = ImageDataset(self.data.splits, spec, self.augment, self.hp.seed)
        items = ([Item(split, index, views) for index in batch] for batch in batches)
        workers = self.decoders.processes(len(views) * max(1, extractor.batch // len(views)), spec.crop)
        for batch in loading.load(images, items, workers, extractor.device):
            self.data.unreadable.use(split, len(batch.targets), batch.bad.values())
            yield batch.pixels
