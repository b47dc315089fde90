"""The images of a job: read from its channels, checked, and decoded for training."""

import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container_serve.errors import RequestError
from container_train.data import channels, duplicates, listing
from container_train.data.checksum_cache import ChecksumCache
from container_train.data.duplicates import Leak
from container_train.data.labels import labels
from container_train.data.listing import MAX_BAD_SHARE, SHOWN, Listing
from container_train.data.listing import Split as Split
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from container_train.progress import in_threads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """All three splits; `bad` names the skipped files, with the reason; `notes` are sentences to log."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    bad: dict[str, str]
    fingerprint: str
    notes: tuple[str, ...]

    def describe(self) -> dict[str, object]:
        return {
            "fingerprint": self.fingerprint,
            "images": {name: len(split) for name, split in self.splits.items()},
            "skipped": len(self.bad),
            "skipped_files": [{"file": file, "reason": reason} for file, reason in sorted(self.bad.items())],
            "notes": list(self.notes),
            "near_duplicates": [leak.to_dict() for leak in self.leaks],
        }

    @functools.cached_property
    def leaks(self) -> list[Leak]:
        """The near-duplicates in different splits."""
        return duplicates.between(self.splits)

    def tell(self) -> None:
        """Log what is not used and what makes the accuracy unreliable; for one process of a job."""
        for file, reason in list(self.bad.items())[:SHOWN]:
            log.warning("skipped %s: %s", file, reason)
        if self.bad:
            total = sum(map(len, self.splits.values())) + len(self.bad)
            log.warning("skipped %d of %d images that cannot be read", len(self.bad), total)
        for words in [*self.notes, *(leak.sentence() for leak in self.leaks)]:
            log.warning("data: %s", words)


def read(tree: SageMakerPaths, known: ChecksumCache | None = None) -> Data:
    """List, check and fingerprint all images. Raises TrainError if training on them would make no sense.

    `known` has the images that were checked before, and learns the others.
    """
    listings = {split: _listed(split, folder) for split, folder in channels.splits(tree).items()}
    order = list(listings["train"].classes)
    if len(order) < 2:
        raise TrainError(f"channel train: {len(order)} class ({', '.join(order)}); a classifier needs at least 2")
    index = {name: number for number, name in enumerate(order)}
    for split, listed in listings.items():
        _check_classes(split, list(listed.classes), order)
    digest = hashlib.sha256()
    bad: dict[str, str] = {}
    splits: dict[str, Split] = {}
    known = ChecksumCache() if known is None else known
    for name, listed in listings.items():
        splits[name], checksums, unreadable = check(listed, index, known)
        bad |= unreadable
        for number, checksum in enumerate(checksums):
            digest.update(f"{splits[name].shown(number)} {checksum}\n".encode())
    notes = listing.remarks(list(listings.values()))
    notes += [f"not used: the channel {name}" for name in channels.unused(tree)]
    notes += _check_completeness(splits, order, bad)
    classes = labels(order)
    if classes != tuple(order):
        log.info("labels: running numbers are left out: %s is the class %s", order[0], classes[0])
    return Data(classes, splits, bad, digest.hexdigest(), tuple(notes))


def _listed(split: str, folder: Path) -> Listing:
    """List one split. Raises TrainError if there are no class folders, and as `listing.read`."""
    listed = listing.read(folder, split)
    if not listed.classes:
        holds = listing.some([path.name for path in listed.loose])
        raise TrainError(
            f"channel {split}: no class folders in {folder}, which holds {holds}; expected one folder of images per"
            " class (manifests are not read)"
        )
    return listed


def _check_classes(split: str, names: list[str], order: list[str]) -> None:
    """Raise TrainError for a class that is not trained."""
    if missing := [name for name in names if name not in order]:
        same = [name for name in order if name.casefold() == missing[0].casefold()]
        raise TrainError(
            f"channel {split}: class {missing[0]!r} is not in channel train"
            f"{f', which has {same[0]!r}' if same else ''}: every class needs training images"
        )


def check(listed: Listing, index: Mapping[str, int], known: ChecksumCache) -> tuple[Split, list[str], dict[str, str]]:
    """Decode every image once, as training will: a truncated one is detected only then.

    `index` has the index of each class folder. Returns the readable images, their checksums, and the reasons by name of
    the others.
    """

    def look(path: Path) -> tuple[str, bytes] | str:
        try:
            return known.check(listed.shown(path), path)
        except (RequestError, OSError) as error:
            return str(error)

    items = [(path, index[name]) for name, paths in listed.classes.items() for path in paths]
    results = in_threads(look, [path for path, _ in items], f"checking {listed.name}", os.cpu_count() or 1)
    both = list(zip(items, results, strict=True))
    good = [(path, target, *result) for (path, target), result in both if not isinstance(result, str)]
    bad = {listed.shown(path): result for (path, _), result in both if isinstance(result, str)}
    split = Split(
        listed.name,
        tuple(path for path, *_ in good),
        tuple(target for _, target, *_ in good),
        listed.root,
        b"".join(similar for *_, similar in good),
    )
    return split, [checksum for _, _, checksum, _ in good], bad


def _check_completeness(splits: dict[str, Split], order: list[str], bad: dict[str, str]) -> list[str]:
    """Raise TrainError if too many are bad, or a class or a whole split is empty. Returns sentences to log."""
    total = sum(map(len, splits.values())) + len(bad)
    if len(bad) > MAX_BAD_SHARE * total:
        first = "; ".join(f"{file}: {reason}" for file, reason in list(bad.items())[:3])
        raise TrainError(
            f"{len(bad)} of {total} files are not readable images, more than {MAX_BAD_SHARE:.0%}: {first};"
            " remove or repair them"
        )
    notes = []
    for split in splits.values():
        if not split.paths:
            raise TrainError(f"channel {split.name}: no images in its class folders")
        counts = Counter(split.targets)
        empty = [name for index, name in enumerate(order) if not counts[index]]
        if empty and split.name == "train":
            raise TrainError(f"channel train: class folder {empty[0]!r} has no readable image: add some or remove it")
        if empty:
            notes.append(f"channel {split.name} has no images of {len(empty)} classes: {', '.join(empty[:SHOWN])}")
    return notes


class ImageUnreadable(TrainError):
    """An image of the job cannot be read any more. A decoding process passes it on with a traceback, left out here."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.ImageUnreadable: "))


def lost(path: Path, error: Exception) -> ImageUnreadable:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return ImageUnreadable(
        f"{path} could be read when the job began, and cannot any more ({reason}): put it back, and start the job again"
    )


def targets(split: Split) -> npt.NDArray[np.int64]:
    """Return the class indices, int64 (N,)."""
    return np.asarray(split.targets, dtype=np.int64)
