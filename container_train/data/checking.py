"""The check of images before the training: which of them can be decoded, and whether they are the same as before."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from container_serve.errors import RequestError
from container_serve.image import decode
from container_train.data.duplicates import perceptual_hash
from container_train.data.files import Files, Split, why
from container_train.data.listing import Listing
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import TrainError
from container_train.paths import replace_file, shared
from container_train.progress import in_threads

MOST = 20_000  # images that are decoded before the training: 14 s on 2 cores for photographs of 600x450
# A file system over the network takes milliseconds for each answer, and gives several at a time.
STAT_THREADS, STAT_CHUNK = 8, 1000

Indices = npt.NDArray[np.int64]
Item = tuple[Split, int]  # an image and its number in the split
Entry = list[str]  # of an image its SHA-256 and its perceptual hash


@dataclass(frozen=True)
class Checked:
    """The images of each split without those that cannot be read, which `bad` names with the reason.

    `decoded` are the images that were checked, with their perceptual hashes: all, or some that are spread evenly.
    """

    splits: dict[str, Split]
    decoded: dict[str, Split]
    bad: dict[str, str]
    fingerprint: str

    @property
    def seen(self) -> int:
        """The number of images that were decoded, or could not be."""
        return sum(map(len, self.decoded.values())) + len(self.bad)


def split_of(listed: Listing, index: Mapping[str, int]) -> Split:
    """Return the images of a listing; `index` has the index of each class folder."""
    numbers = np.array([index[name] for name in listed.classes], dtype=np.int64)
    files = listed.classes.values()
    names = (name for part in files for name in part.names())
    return Split(listed.name, Files(listed.root, names), np.repeat(numbers, list(map(len, files))))


def check(splits: Mapping[str, Split], most: int = MOST, group: ProcessGroup = SINGLE) -> Checked:
    """Decode at most `most` images once, as training will: a truncated one is detected only then.

    The processes of `group` share the work, and each learns the result. The fingerprint is that of the names and the
    content of the images if all were decoded, otherwise of names and sizes. (The files' times differ whenever a job
    gets them from S3.) Raises TrainError if the processes have different files.
    """
    sizes = {name: _sizes(split) for name, split in splits.items()}
    first, *others = group.gather(_by_size(splits, sizes))
    if other := next((rank for rank, found in enumerate(others, 1) if found != first), 0):
        raise TrainError(
            f"process {other} of {group.size} has other images than the first: every host needs all of them, give the"
            " channels the distribution type FullyReplicated"
        )
    chosen = _spread(splits, most)
    items = [(split, index) for name, split in splits.items() for index in chosen[name].tolist()]
    entries: list[Entry | str] = [""] * len(items)  # what is known of each image, or why it cannot be read
    for rank, own in enumerate(group.gather(_own_entries(items[group.rank :: group.size], group))):
        entries[rank :: group.size] = own
    found = iter(entries)
    good: dict[str, Split] = {}
    decoded: dict[str, Split] = {}
    bad: dict[str, str] = {}
    digest = hashlib.sha256()
    for name, split in splits.items():
        results = [(index, next(found)) for index in chosen[name].tolist()]
        readable = {index: entry for index, entry in results if not isinstance(entry, str)}
        unreadable = {index: reason for index, reason in results if isinstance(reason, str)}
        bad |= {split.shown(index): reason for index, reason in unreadable.items()}
        kept = np.delete(np.arange(len(split)), list(unreadable))
        good[name] = split if not unreadable else split.subset(name, kept)
        sizes[name] = sizes[name][kept]
        hashes = b"".join(bytes.fromhex(entry[1]) for entry in readable.values())
        decoded[name] = split.subset(name, list(readable), hashes)
        for index, entry in readable.items():
            digest.update(f"{split.shown(index)} {entry[0]}\n".encode())
    whole = len(items) == sum(map(len, splits.values()))
    return Checked(good, decoded, bad, digest.hexdigest() if whole else _by_size(good, sizes))


def _spread(splits: Mapping[str, Split], most: int) -> Mapping[str, npt.NDArray[np.signedinteger]]:
    """Return the indices of at most `most` images, every so many of all."""
    total = sum(map(len, splits.values()))
    step = max(1, -(-total // most)) if most else total + 1
    chosen, start = {}, 0 if most else 1
    for name, split in splits.items():
        chosen[name] = np.arange(-start % step, len(split), step)
        start += len(split)
    return chosen


def _own_entries(items: list[Item], group: ProcessGroup) -> list[Entry | str]:
    """Decode images, unless another trial of the same search has, and no file has changed since."""

    def look(item: Item) -> Entry | str:
        split, index = item
        try:
            body = split.paths[index].read_bytes()
            return [hashlib.sha256(body).hexdigest(), perceptual_hash(decode(body)).hex()]
        except (RequestError, OSError) as error:
            return why(error)

    folder, threads = shared(), max(1, (os.cpu_count() or 1) // group.local_size)
    file = folder / f"images-{_state(items)}.json" if folder else None
    if file:
        with contextlib.suppress(OSError, ValueError):
            kept: list[Entry | str] = json.loads(file.read_text())
            return kept
    found = in_threads(look, items, "checking images", threads)
    if file:
        with contextlib.suppress(OSError):  # then the next one checks for itself
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps(found).encode())
    return found


def _state(items: list[Item]) -> str:
    digest = hashlib.sha256()
    for split, index in items:
        with contextlib.suppress(OSError):
            found = split.paths[index].stat()
            digest.update(f"{split.shown(index)} {found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
    return digest.hexdigest()[:16]


def _sizes(split: Split) -> Indices:
    """Return the bytes of each file; -1 for one that is not there."""

    def some(start: int) -> list[int]:
        chunk = range(start, min(start + STAT_CHUNK, len(split)))
        return [_size(f"{split.paths.root}/{split.paths.name(index)}") for index in chunk]

    chunks = in_threads(some, range(0, len(split), STAT_CHUNK), f"sizes of {split.name}", STAT_THREADS)
    return np.fromiter((size for chunk in chunks for size in chunk), dtype=np.int64, count=len(split))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  # no Path for each of a million names
    except OSError:
        return -1


def _by_size(splits: Mapping[str, Split], sizes: Mapping[str, Indices]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {len(split)}\n".encode())
        digest.update(split.paths.text)
        digest.update(split.paths.ends.tobytes())
        digest.update(sizes[name].tobytes())
    return digest.hexdigest()
