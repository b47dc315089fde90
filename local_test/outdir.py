"""The folder of results: one run at a time, and never half of one run and half of another."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from local_test.errors import LocalError

MARK = ".byoc-run"  # what this program may replace
_PID = re.compile(rb"\d{1,20}\n?")
# What takes time to make. A run that ended before it had any of these leaves nothing behind.
_WORTH = ("ml/checkpoints", "ml/model", "model")


class OutDir:
    """Work goes into OUT.new, which takes OUT's place when all has happened, or is kept as OUT.failed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.new, self.old, self.failed = (out.with_name(f"{out.name}.{word}") for word in ("new", "old", "failed"))

    def check(self) -> None:
        """Raises LocalError when one of the folders holds what this program has not made."""
        for folder in (self.out, self.new, self.old, self.failed):
            if is_foreign(folder):
                raise _refusal(folder)

    def begin(self) -> Path:
        """Tidy up after a run that was killed, and make OUT.new."""
        self.check()
        if self.old.exists() and not self.out.exists():
            self.old.rename(self.out)  # killed between the two renames of `keep`
        for leftover in (self.new, self.old):
            remove(leftover)
        self.new.mkdir()
        (self.new / MARK).write_text("made by local_test; the next run replaces this folder\n")
        return self.new

    def keep(self) -> None:
        # Training takes a while: somebody may have put something there since.
        if is_foreign(self.out):
            raise LocalError(f"{self.out} was filled by something else meanwhile: the results are in {self.new}")
        if self.out.exists():
            self.out.rename(self.old)
        self.new.rename(self.out)
        remove(self.old)
        if not is_foreign(self.failed):
            remove(self.failed)

    def give_up(self) -> Path | None:
        """Keep what took time to make, in place of what an earlier failed run left; the folder that has it."""
        if not any(_names(self.new / folder) for folder in _WORTH):
            remove(self.new)
            return None
        if is_foreign(self.failed):
            return self.new
        remove(self.failed)
        self.new.rename(self.failed)
        return self.failed


def is_foreign(folder: Path) -> bool:
    """Whether this name is taken by something that is not empty and not this program's."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return True
    names = _names(folder)
    return bool(names) and MARK not in names


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (one look at it: another run may be removing it)
    except FileNotFoundError:
        return []


def _refusal(path: Path) -> LocalError:
    return LocalError(f"{path} holds something else than an earlier run: give another folder with --out", 2)


def remove(folder: Path) -> None:
    """Remove a folder, its mark last. Raises LocalError where files in it belong to somebody else."""
    if not folder.exists():
        return
    try:
        # Killed in the midst of this, a run leaves a folder that the next one still knows as ours.
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise LocalError(
            f"{error.filename or folder} cannot be removed ({error.strerror}): remove {folder} yourself, as its owner"
        ) from None


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[OutDir]:
    """Hold OUT.lock, which holds the pid. Raises LocalError when another run has it, or a name is taken.

    The lock is the kernel's, so that it ends with its process, however that ended.
    """
    out = out.resolve()  # renaming a link would leave the folder it leads to
    if not out.name:
        raise LocalError(f"--out {out} cannot be replaced: give another folder with --out", 2)
    folders = OutDir(out)
    lock = out.with_name(f"{out.name}.lock")
    try:
        folders.check()
        if lock.is_symlink() or (lock.exists() and not lock.is_file()):
            raise _refusal(lock)
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LocalError(f"--out {out}: {error.filename}: {error.strerror}", 2) from None
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        holder = file.read(64)
        if holder and not _PID.fullmatch(holder):
            raise _refusal(lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = holder.decode().strip() or "unknown"
            raise LocalError(
                f"another run (pid {pid}) is writing to {out}: wait for it, stop it, or give another folder with --out"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(b"%d\n" % os.getpid())
        try:
            yield folders
        finally:
            file.seek(0)
            file.truncate()
