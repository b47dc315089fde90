"""The channels: folders of pictures, their classes, and what is wrong with them."""

import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from container_serve.errors import RequestError
from container_serve.image import decode
from container_serve.preprocess import Preprocessing, preprocess, to_tensor
from container_train.data import channels, duplicates
from container_train.data.augmentation import Augmentation
from container_train.data.checksum_cache import ChecksumCache
from container_train.data.duplicates import Leak
from container_train.data.labels import SPLITS, labels
from container_train.data.listing import SHOWN, Listing, remarks, some
from container_train.data.listing import read as listing_of
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from container_train.progress import dropped, track

log = logging.getLogger(__name__)

MAX_BAD_SHARE = 0.05
MANIFESTS = {".manifest", ".jsonl", ".lst", ".rec", ".tfrecord"}


@dataclass(frozen=True)
class Split:
    """The pictures of one split, in a fixed order, and the index of each one's class."""

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Data:
    """All three splits; `bad` names the skipped files by channel path, with the reason; `notes` are sentences to log.

    `hashes` are the perceptual hashes of each split's images, see duplicates.py, `roots` the folders of the splits.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    bad: dict[str, str]
    fingerprint: str
    notes: tuple[str, ...]
    hashes: dict[str, bytes]
    roots: dict[str, Path]

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

        def named(split: Split) -> Callable[[int], str]:
            return lambda index: str(Path(split.name, split.paths[index].relative_to(self.roots[split.name])))

        return duplicates.between(
            {
                name: duplicates.Hashed(self.hashes[name], split.targets, named(split))
                for name, split in self.splits.items()
            }
        )

    def tell(self) -> None:
        """Log what is not used and what cannot be relied on; for one process of a job."""
        for file, reason in list(self.bad.items())[:SHOWN]:
            log.warning("skipped %s: %s", file, reason)
        if self.bad:
            total = sum(map(len, self.splits.values())) + len(self.bad)
            log.warning("skipped %d of %d images that cannot be read", len(self.bad), total)
        for words in [*self.notes, *(leak.sentence() for leak in self.leaks)]:
            log.warning("data: %s", words)


def read(tree: SageMakerPaths, max_workers: int | None = None, known: ChecksumCache | None = None) -> Data:
    """List, check and fingerprint all images. Raises TrainError where training on them would make no sense.

    `known` has those that were checked before, and learns the others.
    """
    known = ChecksumCache() if known is None else known
    listings = {split: _listed(split, folder) for split, folder in channels.splits(tree).items()}
    order = list(listings["train"].classes)
    for split in SPLITS[1:]:
        _check_classes(split, list(listings[split].classes), order)
    if len(order) < 2:
        raise TrainError(f"channel train: {len(order)} class ({', '.join(order)}); a classifier needs at least 2")
    digest = hashlib.sha256()
    bad: dict[str, str] = {}
    splits: dict[str, Split] = {}
    hashes: dict[str, bytes] = {}
    for split, listing in listings.items():
        splits[split], hashes[split] = _check(listing, order, bad, digest, max_workers, known)
    notes = remarks(list(listings.values()))
    notes += [f"not used: the channel {name}" for name in channels.unused(tree)]
    notes += _complete(splits, order, bad)
    classes = labels(order)
    if classes != tuple(order):
        log.info("labels: running numbers are left out: %s is the class %s", order[0], classes[0])
    roots = {split: listing.root for split, listing in listings.items()}
    return Data(classes, splits, bad, digest.hexdigest(), tuple(notes), hashes, roots)


def _listed(split: str, folder: Path) -> Listing:
    """Raises TrainError where there are no class folders, and as `listing.read`."""
    listing = listing_of(folder, split)
    if not listing.classes:
        manifest = next((path.name for path in listing.loose if path.suffix in MANIFESTS), None)
        holds = f"{manifest}, and manifests are not read" if manifest else some([p.name for p in listing.loose])
        raise TrainError(
            f"channel {split}: no class folders in {folder}, which holds {holds}; expected one folder of images per"
            " class"
        )
    return listing


def _check_classes(split: str, names: list[str], order: list[str]) -> None:
    """Raises TrainError for a class that is not trained."""
    missing = [name for name in names if name not in set(order)]
    if missing:
        same = [name for name in order if name.casefold() == missing[0].casefold()]
        raise TrainError(
            f"channel {split}: class {missing[0]!r} is not in channel train"
            f"{f' (nor are {len(missing) - 1} more)' if len(missing) > 1 else ''}"
            f"{f', which has {same[0]!r}' if same else ''}: every class needs training pictures"
        )


def _check(
    listing: Listing,
    order: list[str],
    bad: dict[str, str],
    digest: "hashlib._Hash",
    max_workers: int | None,
    known: ChecksumCache,
) -> tuple[Split, bytes]:
    """Decode every image once, as training will: a truncated one shows only there. Gives perceptual hashes, too."""

    def look(item: tuple[Path, int]) -> tuple[str, bytes, str | None]:
        path, _ = item
        name = listing.shown(path)
        try:
            if found := known.find(name, path):
                return *found, None
            body = path.read_bytes()
            similar = duplicates.perceptual_hash(decode(body))
        except (RequestError, OSError) as error:
            return "", b"", str(error)
        content = hashlib.sha256(body).hexdigest()
        known.add(name, path, content, similar)
        return content, similar, None

    split = listing.name
    index = {name: number for number, name in enumerate(order)}
    listed = [(path, index[name]) for name, paths in listing.classes.items() for path in paths]
    good: list[tuple[Path, int]] = []
    hashes = bytearray()
    with ThreadPoolExecutor(max_workers or os.cpu_count()) as pool, dropped(pool):
        looked = track(pool.map(look, listed), f"checking {split}", len(listed))
        for item, (content, similar, reason) in zip(listed, looked, strict=True):
            name = listing.shown(item[0])
            if reason is None:
                good.append(item)
                hashes += similar
                digest.update(f"{name} {content}\n".encode())
            else:
                bad[name] = reason
    return Split(split, tuple(path for path, _ in good), tuple(target for _, target in good)), bytes(hashes)


def _complete(splits: dict[str, Split], order: list[str], bad: dict[str, str]) -> list[str]:
    """Raise TrainError when too much was bad, or a class or a whole split is empty. Gives sentences to log."""
    total = sum(map(len, splits.values())) + len(bad)
    if len(bad) > MAX_BAD_SHARE * total:
        first = "; ".join(f"{file}: {reason}" for file, reason in list(bad.items())[:3])
        raise TrainError(
            f"{len(bad)} of {total} files are not readable pictures, more than {MAX_BAD_SHARE:.0%}: {first};"
            " remove or repair them"
        )
    notes = []
    for split in splits.values():
        if not split.paths:
            raise TrainError(f"channel {split.name}: no pictures in its class folders")
        counts = Counter(split.targets)
        empty = [name for index, name in enumerate(order) if not counts[index]]
        if empty and split.name == "train":
            raise TrainError(f"channel train: class folder {empty[0]!r} has no readable picture: add some or remove it")
        if empty:
            notes.append(f"channel {split.name} has no images of {len(empty)} classes: {', '.join(empty[:SHOWN])}")
    return notes


class ImageUnreadable(TrainError):
    """A process that decodes hands this on to the training with its traceback, which nobody needs."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.ImageUnreadable: "))


def lost(path: Path, error: Exception) -> ImageUnreadable:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return ImageUnreadable(
        f"{path} could be read when the job began, and cannot any more ({reason}): put it back, and start the job again"
    )


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Tensors float32 (3, crop, crop), the very ones that the server computes, and targets.

    With an augmentation, the view of a picture depends on (seed, view, index) alone, not on the order or the number
    of decoding processes, so that a resumed epoch sees what an uninterrupted one would have seen.
    """

    def __init__(self, split: Split, spec: Preprocessing, augment: str = "none", seed: int = 0, view: int = 0) -> None:
        self.split, self.spec, self.seed, self.view = split, spec, seed, view
        self.augment = None if augment == "none" else Augmentation(augment, spec)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.split.paths[index]
        try:
            body = path.read_bytes()
            if self.augment is None:
                return torch.from_numpy(preprocess(body, self.spec)), self.split.targets[index]
            image = decode(body)
        except (OSError, RequestError) as error:
            raise lost(path, error) from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, self.view, index)))
            image = self.augment(image)
        return torch.from_numpy(to_tensor(image, self.augment.spec)), self.split.targets[index]


def targets(split: Split) -> npt.NDArray[np.int64]:
    """Class indices, int64 (N,)."""
    return np.asarray(split.targets, dtype=np.int64)
