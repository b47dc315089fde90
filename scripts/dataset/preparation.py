"""One call of prepare_data.py: which images go where, and the folder that it makes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container_train.data import splits
from container_train.data.splits import ClassFiles
from container_train.errors import DataError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.dataset import check, prepared
from scripts.dataset.source import Opened, Source


@dataclass(frozen=True)
class Preparation:
    source: Source
    out: Path | None
    prefix: S3Uri | None
    settings: Settings
    fractions: tuple[float, ...]
    seed: int
    any_counts: bool

    @property
    def origin(self) -> dict[str, object]:
        return {"source": self.source.record(), "split": list(self.fractions), "seed": self.seed}

    @property
    def downloads(self) -> Path:
        return self.out.parent if self.out else self.source.cache()

    @property
    def record(self) -> dict[str, Any] | None:
        """Of --out, if an earlier call made it."""
        return None if self.out is None else prepared.find(self.out, self.origin)

    def images(self, opened: Opened, then: str) -> dict[str, ClassFiles]:
        """The readable images of each split; `then`: what becomes of the others."""
        plan = splits.plan(opened.root, self.fractions, self.seed)
        if "dogImages" in (opened.root.name, self.source.name) and not self.any_counts:
            check.dog_images(plan, opened.archive or opened.root)
        return check.readable(plan, progress, then)

    def to_send(self, work: Path) -> tuple[dict[str, ClassFiles], Opened]:
        """Return the files for S3: from --out where that is made, else from the source itself."""
        if self.out is not None and self.record:
            return check.readable(splits.plan(self.out), progress), Opened(self.out)
        opened = self.source.open(work, self.downloads)
        return self.images(opened, "they are not sent"), opened

    def lay_out(self, out: Path) -> dict[str, Any]:
        """Make `out`, which is --out, or leave nothing of it. A folder that the same call has made stays as it is."""
        record = self.record
        if not record:
            with prepared.workplace(out) as work:
                record = self.record  # another call may just have ended
                if not record:
                    opened = self.source.open(work, self.downloads)
                    if out.is_relative_to(opened.root):
                        raise DataError(f"--out {out} lies inside the images' own folder {opened.root}: give another")
                    found = self.images(opened, "they are left out")
                    record = {**self.origin, **summary(found)}
                    prepared.make(out, found, record, work)
                    opened.forget()
                    return {**record, "out": str(out)}
        progress(
            f"{out} already exists, made from {self.source.text}: nothing to do (to include what has changed there"
            " since, remove it and call again)"
        )
        return {**record, "out": str(out)}


def summary(found: dict[str, ClassFiles]) -> dict[str, Any]:
    return {"images": splits.count(found), "classes": len(found["train"])}
