"""The images of one split."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Split:
    """The images below `root`, in a fixed order, the index of each one's class, and their perceptual hashes.

    The hashes are duplicates.HASH_BYTES for each image, one after another; empty if nobody asked for them.
    """

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    root: Path = Path()
    hashes: bytes = b""

    def __len__(self) -> int:
        return len(self.paths)

    def shown(self, index: int) -> str:
        """Return the name of an image in messages: train/Beagle/1.jpg."""
        return str(Path(self.name, self.paths[index].relative_to(self.root)))

    def subset(self, name: str, indices: Iterable[int]) -> "Split":
        """Return some of the images, without hashes, as the split `name`."""
        chosen = list(indices)
        paths, targets = tuple(self.paths[i] for i in chosen), tuple(self.targets[i] for i in chosen)
        return replace(self, name=name, paths=paths, targets=targets, hashes=b"")
