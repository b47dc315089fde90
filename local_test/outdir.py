"""The folder of results: one run at a time, and never half of one run and half of another."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from local_test.errors import LocalError

MARK = ".byoc-run"  # what this program may replace


class OutDir:
    """Work goes into OUT.new, which takes OUT's place when all has happened, or is kept as OUT.failed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.new, self.old, self.failed = (out.with_name(f"{out.name}.{word}") for word in ("new", "old", "failed"))

    def begin(self) -> Path:
        """Tidy up after a run that was killed, and make OUT.new."""
        if self.old.exists() and not self.out.exists():
            self.old.rename(self.out)  # killed between the two renames of `keep`
        if self.out.exists() and not (self.out / MARK).exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise LocalError(f"--out {self.out} holds something else than an earlier run: give another folder", 2)
        for leftover in (self.new, self.old):
            remove(leftover)
        self.new.mkdir()
        (self.new / MARK).write_text("made by local_test; the next run replaces this folder\n")
        return self.new

    def keep(self) -> None:
        if self.out.exists():
            self.out.rename(self.old)
        self.new.rename(self.out)
        remove(self.old)
        remove(self.failed)

    def give_up(self) -> None:
        remove(self.failed)
        self.new.rename(self.failed)


def remove(folder: Path) -> None:
    """Remove a folder. Raises LocalError where files in it belong to somebody else."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LocalError(
            f"{error.filename or folder} cannot be removed ({error.strerror}): remove {folder} yourself, as its owner"
        ) from None


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[OutDir]:
    """Hold OUT.lock, which holds the pid. Raises LocalError when another run has it.

    The lock is the kernel's, so that it ends with its process, however that ended.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out.with_name(f"{out.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LocalError(f"--out {out}: {error.filename}: {error.strerror}", 2) from None
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read().strip() or "unknown"
            raise LocalError(
                f"another run (pid {pid}) is writing to {out}: wait for it, stop it, or give another folder with --out"
            ) from None
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield OutDir(out)
        finally:
            file.seek(0)
            file.truncate()
