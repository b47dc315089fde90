"""Names of files and the images of a split, in a few arrays for millions of them. Needs no torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
import numpy.typing as npt


class Files(Sequence[Path]):
    """The paths of files below `root`, made when asked for: a million names take some 30 MB, as paths half a GB.

    The names are relative to `root`, with slashes, in one bytes object: nothing in it has a reference count, which a
    decoding process would write to, and so copy the page.
    """

    def __init__(self, root: Path, names: Iterable[str] = ()) -> None:
        encoded = [name.encode() for name in names]
        self.root, self.text = root, b"".join(encoded)
        self.ends = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(name) for name in encoded], out=self.ends[1:])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: SupportsIndex) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Path | Files":
        if isinstance(index, slice):
            return Files(self.root, [self.name(number) for number in range(*index.indices(len(self)))])
        return self.root / self.name(range(len(self))[index])

    def name(self, index: int) -> str:
        """Return the name relative to `root`; `index` counts from 0."""
        return self.text[self.ends[index] : self.ends[index + 1]].decode()

    def names(self) -> Iterator[str]:
        return map(self.name, range(len(self)))


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order, the index of each one's class, int64 (N,), and their perceptual hashes.

    The hashes are duplicates.HASH_BYTES for each image, one after another; empty if nobody asked for them.
    """

    name: str
    paths: Files
    targets: npt.NDArray[np.int64]
    hashes: bytes = b""

    def __len__(self) -> int:
        return len(self.paths)

    def shown(self, index: int) -> str:
        """Return the name of an image in messages: train/Beagle/1.jpg."""
        return shown(self.name, self.paths.name(index))

    def subset(self, name: str, indices: Sequence[int] | npt.NDArray[np.int64], hashes: bytes = b"") -> "Split":
        """Return some of the images, with these hashes, as the split `name`."""
        chosen = np.asarray(indices, dtype=np.int64)
        paths = Files(self.paths.root, map(self.paths.name, chosen.tolist()))
        return Split(name, paths, self.targets[chosen], hashes)

    def turns(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many of these images are of the same class and come before, for each of them."""
        targets = self.targets[indices]
        order = np.argsort(targets, kind="stable")
        turns = np.empty_like(order)
        turns[order] = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])
        return turns


def why(error: Exception) -> str:
    """Return the reason why a file cannot be read, without its path: that is the job's, which its user cannot find."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def shown(folder: str, name: str) -> str:
    """Return the name of a file in messages."""
    return f"{folder}/{name}" if folder else name
