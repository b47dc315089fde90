"""One call of prepare_data.py: which images go where, and the folder that it makes.

The folder is made whole: DIR/{train,valid,test}/CLASS/image, and a record of what it was made from.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container_train.data import splits
from container_train.data.splits import ClassFiles
from container_train.errors import DataError
from container_train.paths import locked
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.dataset import check
from scripts.dataset.source import Source

RECORD = ".prepared.json"  # written last: a folder that has it is complete


@dataclass(frozen=True)
class Preparation:
    source: Source
    out: Path | None
    prefix: S3Uri | None
    settings: Settings
    fractions: tuple[float, ...]
    seed: int

    @property
    def origin(self) -> dict[str, object]:
        return {"source": self.source.record(), "split": list(self.fractions), "seed": self.seed}

    @property
    def downloads(self) -> Path:
        return self.out.parent if self.out else self.source.cache()

    @property
    def record(self) -> dict[str, Any] | None:
        """Of --out, if an earlier call made it of the same; None where there is nothing yet.

        Raises DataError where it is something else: that is not overwritten.
        """
        if self.out is None or not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return None
        try:
            record = json.loads((self.out / RECORD).read_text())
        except (OSError, ValueError):
            record = None
        if isinstance(record, dict) and all(record.get(key) == value for key, value in self.origin.items()):
            return record
        raise DataError(f"{self.out} exists and was not made by this call: give another --out, or remove it")

    def images(self, root: Path, then: str) -> dict[str, ClassFiles]:
        """The readable images of each split; `then`: what becomes of the others."""
        return check.readable(splits.plan(root, self.fractions, self.seed), progress, then)

    def to_send(self, work: Path) -> dict[str, ClassFiles]:
        """Return the files for S3: from --out where that is made, else from the source itself."""
        if self.out is not None and self.record:
            return check.readable(splits.plan(self.out), progress)
        return self.images(self.source.open(work, self.downloads), "they are not sent")

    def lay_out(self, out: Path) -> dict[str, Any]:
        """Make `out`, which is --out, or leave nothing of it. A folder that the same call has made stays as it is."""
        if not self.record:
            with workplace(out) as work:
                if not self.record:  # another call may just have ended
                    return {**self._make(out, work), "out": str(out)}
        progress(f"{out} already exists, made from {self.source.text}: nothing to do (remove it to make it again)")
        return {**(self.record or {}), "out": str(out)}

    def _make(self, out: Path, work: Path) -> dict[str, Any]:
        """Lay the images out in `work` and move them to `out` at once: there is never half of it."""
        root = self.source.open(work, self.downloads)
        if out.is_relative_to(root):
            raise DataError(f"--out {out} lies inside the images' own folder {root}: give another")
        found, made = self.images(root, "they are left out"), work / "made"
        record = {**self.origin, **summary(found)}
        splits.lay_out(found, made)
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        made.rename(out)
        self.source.forget(self.downloads)
        return record


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, on the same disk; what an ended call left there is removed, as it is afterwards.

    Raises DataError while another call works there.
    """
    work = out.with_name(f".{out.name}.tmp")
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, lambda: DataError(f"another call is making {out}: wait for it, or give another --out")):
        for left in work.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def summary(found: dict[str, ClassFiles]) -> dict[str, Any]:
    return {"images": splits.count(found), "classes": len(found["train"])}
