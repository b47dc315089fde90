"""The images of a job: read from its channels, checked, and decoded for training."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from container_train.data import channels, checking, duplicates, listing
from container_train.data.checking import Checked
from container_train.data.duplicates import Leak
from container_train.data.files import Split
from container_train.data.labels import labels
from container_train.data.listing import Listing
from container_train.data.unreadable import TRAIN, Unreadable, check_share, no_image_of
from container_train.data.unused import SHOWN
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """All three splits, without the files that `bad` names, with the reason; `notes` are sentences to log.

    `checked` has those images that were decoded before the training, with their perceptual hashes. `unreadable` learns
    of more bad files while the job runs.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    checked: dict[str, Split]
    bad: dict[str, str]
    fingerprint: str
    notes: tuple[str, ...]
    unreadable: Unreadable

    def describe(self) -> dict[str, object]:
        return {
            "fingerprint": self.fingerprint,
            "images": {name: self.unreadable.count(name) for name in self.splits},
            "skipped": len(self.unreadable.files),
            "skipped_files": [{"file": file, "reason": r} for file, r in sorted(self.unreadable.files.items())],
            "notes": list(self.notes),
            "near_duplicates": [leak.to_dict() for leak in self.leaks],
        }

    @functools.cached_property
    def leaks(self) -> list[Leak]:
        """The near-duplicates in different splits, of the images that were checked."""
        return duplicates.between(self.checked)

    def tell(self) -> None:
        """Log what is not used and what makes the accuracy unreliable; for one process of a job."""
        for file, reason in list(self.bad.items())[:SHOWN]:
            log.warning("skipped %s: %s", file, reason)
        total, seen = (sum(map(len, s.values())) + len(self.bad) for s in (self.splits, self.checked))
        if self.bad:
            log.warning("skipped %d of %d images that cannot be read", len(self.bad), seen)
        if seen < total:
            log.info("data: %d of %d images were decoded to check them; training checks the others", seen, total)
        for words in [*self.notes, *(leak.sentence() for leak in self.leaks)]:
            log.warning("data: %s", words)


def with_skipped(described: Mapping[str, Any], bad: Mapping[str, str], images: Mapping[str, int]) -> dict[str, Any]:
    """Return what model.json says of the data, with more files that cannot be read and the `images` that remain."""
    files = [*described["skipped_files"], *({"file": file, "reason": reason} for file, reason in bad.items())]
    files.sort(key=itemgetter("file"))
    remaining = {**described["images"], **images}
    return {**described, "images": remaining, "skipped": len(files), "skipped_files": files}


def read(tree: SageMakerPaths, group: ProcessGroup = SINGLE) -> Data:
    """List, check and fingerprint the images. Raises TrainError if training on them would make no sense.

    The processes of `group` share the check.
    """
    listings = {split: _listed(split, folder) for split, folder in channels.splits(tree).items()}
    order = list(listings["train"].classes)
    if len(order) < 2:
        raise TrainError(f"channel train: {len(order)} class ({', '.join(order)}); a classifier needs at least 2")
    index = {name: number for number, name in enumerate(order)}
    listing.check_classes(listings)
    splits = {name: checking.split_of(listed, index) for name, listed in listings.items()}
    # Each file of a stream is a request to S3, and the training makes it anyway.
    checked = checking.check(splits, 0 if channels.are_streamed(tree) else checking.MOST, group)
    notes = listing.remarks(list(listings.values()))
    notes += [f"not used: the channel {name}" for name in channels.unused(tree)]
    notes += _check_completeness(checked, order)
    classes = labels(order)
    if classes != tuple(order):
        log.info("labels: running numbers are left out: %s is the class %s", order[0], classes[0])
    unreadable = Unreadable(checked.splits, checked.bad, checked.seen)
    return Data(
        classes, checked.splits, checked.decoded, checked.bad, checked.fingerprint, tuple(notes), unreadable
    )  # fmt: skip


def _listed(split: str, folder: Path) -> Listing:
    """List one split. Raises TrainError if there are no class folders, and as `listing.read`."""
    listed = listing.read(folder, split)
    if not listed.classes:
        raise TrainError(
            f"channel {split}: no class folders in {folder}, which holds {listed.loose}; expected one folder of images"
            " per class (manifests are not read)"
        )
    return listed


def _check_completeness(checked: Checked, order: list[str]) -> list[str]:
    """Raise TrainError if too many are bad, or a class or a whole split is empty. Returns sentences to log."""
    notes = []
    check_share(checked.bad, checked.seen)
    for split in checked.splits.values():
        if not len(split):
            raise TrainError(f"channel {split.name}: no images in its class folders")
        empty = [order[index] for index in np.flatnonzero(np.bincount(split.targets, minlength=len(order)) == 0)]
        if empty and split.name == TRAIN:
            raise no_image_of(empty[0])
        if empty:
            notes.append(f"channel {split.name} has no images of {len(empty)} classes: {', '.join(empty[:SHOWN])}")
    return notes
