"""The folders where features are kept.

BYOC_FEATURE_CACHE=DIR names the only one, for the trials of a search say. Without it, features are read from the
channel `features` (an input, never written), and from and to `features` in the checkpoint folder, which the platform
restores when a spot job restarts. More than CHECKPOINT_BYTES would keep the platform copying: they go to `features`
beside the other folders of the tree, which ends with the container.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from container_train.paths import SageMakerPaths, shared

CHECKPOINT_BYTES = 10**9
RESERVE_BYTES = 256 * 2**20  # of a disk that features leave free for checkpoints and the model


@dataclass(frozen=True)
class Store:
    """Folders to read from, and folders to write to with the most bytes that each takes."""

    readable: tuple[Path, ...] = ()
    writable: tuple[tuple[Path, float], ...] = ()

    @classmethod
    def of(cls, tree: SageMakerPaths) -> "Store":
        if only := shared():
            return cls((only,), ((only, float("inf")),))
        kept, scratch = tree.checkpoints / "features", tree.base / "features"
        return cls((tree.channels / "features", kept, scratch), ((kept, CHECKPOINT_BYTES), (scratch, float("inf"))))

    def place(self, need: int) -> tuple[Path | None, str]:
        """Return the first writable folder with room for `need` bytes; or None, and the reason for each folder."""
        reasons = []
        for folder, most in self.writable:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                room = min(most, shutil.disk_usage(folder).free - RESERVE_BYTES)
            except OSError as error:
                reasons.append(f"{folder} cannot be written ({error.strerror})")
                continue
            if need <= room and os.access(folder, os.W_OK):
                return folder, ""
            reasons.append(f"{folder} has room for {max(room, 0) / 1e9:.1f} GB, or cannot be written")
        return None, "; ".join(reasons) or "no folder was given"
