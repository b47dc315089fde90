"""Near-duplicates in different splits, by a perceptual hash: what is measured on them is not accuracy.

The hash is the difference hash (dHash) of 16 x 16 bits: whether an image, shrunk to 17 x 16 grey pixels, becomes
brighter from each pixel to the next. Half the size, JPEG quality 40, other brightness or contrast, or 3 % cut off each
side change at most 40 of the bits of 99 in 100 photographs. Of 6,000 photographs of dogs in three splits, the pairs
below 60 bits were all of one photograph; the first of two was at 68. (64 bits do not tell these apart.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from container_train.labels import SPLITS

SIDE = 16
# Bits that may differ, as a share of those set (or not set, if they are fewer): about 40 of a photograph's 128, fewer
# where much of the image is of one colour, whose bits are all the same. With fewer set than PLAIN_BITS it says nothing.
MOST_SHARE = 0.31
PLAIN_BITS = 16
EXAMPLES = 5
COMPARED = 1 << 20  # pairs at a time

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Leak:
    """`count` of the `total` images of `split` have a near-duplicate in the split `of`; the first, and theirs."""

    split: str
    of: str
    count: int
    total: int
    examples: tuple[tuple[str, str], ...]

    def sentence(self) -> str:
        pairs = "; ".join(f"{first} and {second}" for first, second in self.examples)
        return (
            f"{self.count} of {self.total} images of {self.split} are near-duplicates of images of {self.of}, so"
            f" accuracies on {self.split} are too high: {pairs}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "split": self.split, "of": self.of, "images": self.count, "total": self.total,
            "examples": [list(pair) for pair in self.examples], "sentence": self.sentence(),
        }  # fmt: skip


def perceptual_hash(image: Image.Image) -> str:
    """64 hexadecimal digits."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX))
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()


def between(splits: Mapping[str, Mapping[str, str]]) -> list[Leak]:
    """Compare the hashes by name of each split, also with mirrored ones."""
    arrays = {name: _array(list(hashes.values())) for name, hashes in splits.items()}
    found = []
    for of, split in combinations([name for name in SPLITS if splits.get(name)], 2):
        pairs = _nearest(arrays[split], np.concatenate([arrays[of], _mirrored(arrays[of])]))
        if pairs:
            names, others = list(splits[split]), list(splits[of])
            examples = tuple((names[i], others[j % len(others)]) for i, j in pairs[:EXAMPLES])
            found.append(Leak(split, of, len(pairs), len(names), examples))
    return found


def _array(hashes: list[str]) -> Hashes:
    """(N, 4)"""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, SIDE * SIDE // 64)


def _mirrored(hashes: Hashes) -> Hashes:
    """Of the same images mirrored: the bits in the other direction, and each the opposite."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).reshape(-1, SIDE, SIDE)
    return np.packbits(1 - bits[:, :, ::-1], axis=None).view(np.uint64).reshape(hashes.shape)


def _nearest(hashes: Hashes, others: Hashes) -> list[tuple[int, int]]:
    """For each of `hashes` with a near-duplicate its index, and the nearest one's in `others`."""
    found = []
    size = max(1, COMPARED // max(1, len(others)))
    for start in range(0, len(hashes), size):
        rows = hashes[start : start + size]
        distance = np.zeros((len(rows), len(others)), dtype=np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(rows[:, word, None] ^ others[:, word])
        nearest = distance.argmin(1)
        ones = np.bitwise_count(rows).sum(1)
        informative = np.minimum(ones, SIDE * SIDE - ones)
        near = (distance.min(1) <= MOST_SHARE * informative) & (informative >= PLAIN_BITS)
        found += [(start + int(i), int(nearest[i])) for i in np.flatnonzero(near)]
    return found
