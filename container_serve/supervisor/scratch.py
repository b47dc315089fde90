"""Temporary folders, and what servers have left that were killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from container_serve.errors import ServeError

PREFIX, LOCK = "byoc-serve-", "lock"
ROOM = "the server needs 1 MB there, as docker run --tmpfs /tmp gives it"


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Raise ServeError where the folder cannot be written, as where its disk is full."""
    try:
        yield
    except OSError as error:
        raise ServeError(f"{run}: cannot be written ({error.strerror}); {ROOM}") from None


@contextmanager
def run_directory() -> Iterator[Path]:
    """A new temporary folder for this user alone, removed afterwards. Raises ServeError.

    It holds a lock, which the kernel drops when this process is gone, however that ended: folders without are removed.
    """
    try:
        run = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:  # also: none of the usual folders can be written
        raise ServeError(f"TMPDIR: no folder for temporary files ({error.strerror}); {ROOM}") from None
    try:
        with writing(run):
            lock = (run / f"{LOCK}.new").open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            (run / f"{LOCK}.new").rename(run / LOCK)  # nobody sees it without its lock
        with lock:
            for other in run.parent.glob(f"{PREFIX}*"):
                # Not another user's, nor one that is just being made.
                with suppress(OSError), (other / LOCK).open("rb") as theirs:
                    fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(other, ignore_errors=True)
            yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)
