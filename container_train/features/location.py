"""Where features are kept: the folder that was named, the channel `features`, the checkpoint folder, or a scratch one.

BYOC_FEATURE_CACHE=DIR names the one folder that is read and written, for the trials of a search say. Without it the
channel `features` is looked into (and never written: it is an input), then `features` in the checkpoint folder, which
the platform brings back when a spot job restarts. What is larger than CHECKPOINT_BYTES would keep the platform copying,
and goes to `features` beside the other folders of the tree, which ends with the container.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from container_train.paths import SageMakerPaths

VARIABLE = "BYOC_FEATURE_CACHE"
CHANNEL = "features"
CHECKPOINT_BYTES = 10**9
RESERVE_BYTES = 256 * 2**20  # of a disk that features leave free: checkpoints and the model need some


@dataclass(frozen=True)
class Store:
    """Folders to look into, and folders to write to with the most bytes that each takes (None: what fits)."""

    readable: tuple[Path, ...] = ()
    writable: tuple[tuple[Path, int | None], ...] = ()

    @classmethod
    def of(cls, tree: SageMakerPaths) -> "Store":
        named = os.environ.get(VARIABLE, "").strip()
        if named:
            return cls((Path(named),), ((Path(named), None),))
        kept, scratch = tree.checkpoints / "features", tree.base / "features"
        return cls((tree.channels / CHANNEL, kept, scratch), ((kept, CHECKPOINT_BYTES), (scratch, None)))

    def place(self, need: int) -> tuple[Path | None, str]:
        """The first writable folder with room for `need` bytes; or None, and what is wrong with each."""
        reasons = []
        for folder, most in self.writable:
            if most is not None and need > most:
                reasons.append(f"{folder} takes {most / 1e9:.1f} GB at most")
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                free = shutil.disk_usage(folder).free - RESERVE_BYTES
            except OSError as error:
                reasons.append(f"{folder} cannot be written ({error.strerror})")
                continue
            if not os.access(folder, os.W_OK):
                reasons.append(f"{folder} cannot be written")
            elif need > free:
                reasons.append(f"{folder} has {max(free, 0) / 1e9:.1f} GB free")
            else:
                return folder, ""
        return None, "; ".join(reasons) or "no folder was given"

    def others(self, folder: Path | None) -> Iterable[Path]:
        """The readable folders but for `folder`."""
        return (other for other in self.readable if other != folder)
