"""Temporary folders: a server's own, and what servers have left that were killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from container_serve.configuration import ROOM, ConfigurationError

PREFIX, LOCK = "byoc-serve-", "lock"


def private_directory(prefix: str) -> Path:
    """A new temporary folder for this user alone. Raises ConfigurationError."""
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:  # also: none of the usual folders can be written
        raise ConfigurationError(f"TMPDIR: no folder for temporary files ({error.strerror}); {ROOM}") from None


@contextmanager
def run_directory() -> Iterator[Path]:
    """The folder of one server, for as long as it runs. Raises ConfigurationError.

    It holds a lock, which the kernel drops when its server is gone, however that ended: folders without are removed.
    """
    run = private_directory(PREFIX)
    try:
        with _locked(run):
            for other in run.parent.glob(f"{PREFIX}*"):
                _remove_abandoned(other)
            yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    new = run / f"{LOCK}.new"
    try:
        lock = new.open("wb")
    except OSError as error:
        raise ConfigurationError(f"{run}: cannot be written ({error.strerror}); {ROOM}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(run / LOCK)  # nobody sees it without its lock
        yield


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError), (folder / LOCK).open("rb") as lock:  # another user's, or one that is just being made
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
