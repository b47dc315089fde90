"""A folder that was made whole: DIR/{train,valid,test}/CLASS/image, and a record of what it was made from."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from container_train.data import splits
from container_train.data.splits import ClassFiles
from container_train.errors import DataError
from container_train.paths import locked

RECORD = ".prepared.json"  # written last: a folder that has it is complete


def find(out: Path, origin: Mapping[str, object]) -> dict[str, Any] | None:
    """The record of `out` if it was made from the same; None where there is nothing yet.

    Raises DataError where it is something else: that is not overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):
        record = None
    if isinstance(record, dict) and all(record.get(key) == value for key, value in origin.items()):
        return record
    raise DataError(f"{out} exists and was not made by this call: give another --out, or remove it")


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


def make(out: Path, found: Mapping[str, ClassFiles], record: Mapping[str, object], work: Path) -> None:
    """Lay the images out in `work` and move them to `out` at once: there is never half of it."""
    made = work / "made"
    splits.lay_out(found, made)
    (made / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    if out.exists():
        out.rmdir()
    made.rename(out)
