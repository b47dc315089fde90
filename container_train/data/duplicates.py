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

from container_train.data.files import Split
from container_train.data.labels import SPLITS

SIDE = 16
HASH_BYTES = SIDE * SIDE // 8
MOST_BITS = 40  # that differ between two of the same; fewer where most of an image's bits are the same, as in clear sky
# Where all images are much alike (X-rays, parts on a conveyor, digits), copies are told apart by being nearer still: by
# this share of the distance that an image has to the nearest one of another class, in the median.
ALIKE_SHARE = 0.5
PLAIN_BITS = 16  # an image with fewer bits set, or not set, is nearly of one colour and says nothing
EXAMPLES = 5
COMPARED = 1 << 20  # pairs at a time

Hashes = npt.NDArray[np.uint64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """`count` of `total` images of `split` have a near-duplicate in the split `of`; the first, and theirs."""

    split: str
    of: str
    count: int
    total: int
    examples: tuple[tuple[str, str], ...]

    def sentence(self) -> str:
        pairs = "; ".join(f"{first} and {second}" for first, second in self.examples)
        return (
            f"{self.count} of {self.total} images of {self.split} are near-duplicates of images of {self.of}: if they"
            f" are copies, the accuracy on {self.split} is too high ({pairs})"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "split": self.split, "of": self.of, "images": self.count, "total": self.total,
            "examples": [list(pair) for pair in self.examples], "sentence": self.sentence(),
        }  # fmt: skip


def perceptual_hash(image: Image.Image) -> bytes:
    """Return HASH_BYTES."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX))
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def between(splits: Mapping[str, Split]) -> list[Leak]:
    """Compare the images of each split with those of the others and their mirrored ones."""
    found = []
    for of, split in combinations([splits[name] for name in SPLITS if name in splits and splits[name].hashes], 2):
        ours, theirs = (np.frombuffer(each.hashes, np.uint64).reshape(-1, HASH_BYTES // 8) for each in (split, of))
        mirrored = np.concatenate([theirs, _mirrored(theirs)])
        if pairs := _near(ours, split.targets, mirrored, np.tile(of.targets, 2)):
            examples = tuple((split.shown(i), of.shown(j % len(theirs))) for i, j in pairs[:EXAMPLES])
            found.append(Leak(split.name, of.name, len(pairs), len(ours), examples))
    return found


def _mirrored(hashes: Hashes) -> Hashes:
    """Return the hashes of the mirrored images: the bits in reverse order, and each inverted."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).reshape(-1, SIDE, SIDE)
    return np.packbits(1 - bits[:, :, ::-1], axis=None).view(np.uint64).reshape(hashes.shape)


def _near(hashes: Hashes, classes: Classes, others: Hashes, their_classes: Classes) -> list[tuple[int, int]]:
    """Return the index of each of `hashes` with a near-duplicate in `others`, and that one's."""
    nearest = np.zeros(len(hashes), dtype=np.int64)
    distance, to_others = np.zeros((2, len(hashes)), dtype=np.uint16)
    size = max(1, COMPARED // len(others))
    for start in range(0, len(hashes), size):
        rows = slice(start, start + size)
        bits = np.zeros((len(hashes[rows]), len(others)), dtype=np.uint16)
        for word in range(hashes.shape[1]):
            bits += np.bitwise_count(hashes[rows, word, None] ^ others[:, word])
        nearest[rows], distance[rows] = bits.argmin(1), bits.min(1)
        bits[classes[rows, None] == their_classes] = SIDE * SIDE
        to_others[rows] = bits.min(1)
    ones = np.bitwise_count(hashes).sum(1)
    informative = np.minimum(ones, SIDE * SIDE - ones)
    most = min(MOST_BITS, ALIKE_SHARE * float(np.median(to_others))) * informative / (SIDE * SIDE / 2)
    near = (distance <= most) & (informative >= PLAIN_BITS)
    return [(int(i), int(nearest[i])) for i in np.flatnonzero(near)]
