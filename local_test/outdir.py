"""The folder of results: one run at a time, and never half of one run and half of another."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from container_train.paths import locked
from local_test.errors import LocalError

MARK = ".byoc-run"  # in folders that this program may replace
RUNNING = "a run of local_test is writing here\n"
DONE = "made by local_test; the next run replaces this folder\n"
# What takes time to make. A run that ended before it had any of these leaves its logs and reports, if it had come to
# train, but not in place of such things.
_WORTH = ("ml/checkpoints", "ml/model", "model")
_LOGS = ("logs",)


class OutDir:
    """Work goes into OUT. The results before wait in OUT.old, and come back when the run fails."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.old, self.failed = out.with_name(f"{out.name}.old"), out.with_name(f"{out.name}.failed")

    def check(self) -> None:
        """Raises LocalError when one of the folders holds what this program has not made."""
        for folder in (self.out, self.old, self.failed):
            taken = folder.is_symlink() or (folder.exists() and not folder.is_dir())
            names = [] if taken or not folder.exists() else sorted(path.name for path in folder.iterdir())
            if taken or (names and MARK not in names):
                seen = f" ({names[0]})" if names else ""  # it may be a hidden file
                raise LocalError(f"{folder} holds something else than an earlier run{seen}: give another --out", 2)

    def begin(self) -> Path:
        """Tidy up after a run that was killed, and make a new OUT."""
        self.check()
        mark = self.out / MARK
        if mark.exists() and mark.read_text() == RUNNING and (kept := self.give_up()):
            print(f"a run that was killed has left {kept}; this one starts from the first epoch", flush=True)
        if self.out.exists():
            remove(self.old)
            self.out.rename(self.old)
        self.out.mkdir()
        mark.write_text(RUNNING)
        return self.out

    def keep(self) -> None:
        (self.out / MARK).write_text(DONE)
        remove(self.old)
        remove(self.failed)

    def give_up(self) -> Path | None:
        """Keep what took time to make, in place of what an earlier failed run left; the folder that has it."""
        kept = None
        if _has(self.out, _WORTH) or (_has(self.out, _LOGS) and not _has(self.failed, _WORTH)):
            remove(self.failed)
            kept = self.out.rename(self.failed)
        else:
            remove(self.out)
        if self.old.exists():
            self.old.rename(self.out)
        return kept


def _has(folder: Path, parts: tuple[str, ...]) -> bool:
    return any(next((folder / part).glob("*"), None) for part in parts)


def remove(folder: Path) -> None:
    """Remove a folder, its mark last. Raises LocalError where files in it belong to another user."""
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
        what = f"{error.filename or folder} cannot be removed ({error.strerror})"
        raise LocalError(f"{what}: remove {folder} yourself, as its owner") from None


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[OutDir]:
    """Hold a lock beside OUT, a file with the pid. Raises LocalError when another run has it, or a name is taken."""
    out = out.resolve()  # renaming a link would leave the folder it leads to
    if out.is_mount():  # "/" is one, too
        raise LocalError(f"--out {out} is a mount point, which cannot be replaced: give a folder in it", 2)
    if out.suffix in (".old", ".failed"):  # a run into OUT would take them for its own
        raise LocalError(f"--out {out}: names ending in {out.suffix} are for what other runs left: give another", 2)
    folders = OutDir(out)
    lock = out.with_name(f".{out.name}.byoc-lock")

    def busy() -> LocalError:
        pid = lock.read_text().strip() if lock.exists() else "that ends just now"
        return LocalError(f"another run (pid {pid}) is writing to {out}: wait for it, stop it, or give another --out")

    with contextlib.ExitStack() as stack:
        try:
            folders.check()
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock, busy))
            stack.callback(lock.unlink, missing_ok=True)
            lock.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise LocalError(f"--out {out}: {error.filename or lock}: {error.strerror}", 2) from None
        yield folders
