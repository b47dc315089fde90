"""Temporary folders, and what programs have left in theirs that were killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from container_serve.errors import ServeError

PREFIX, LOCK = "byoc-", ".lock"
ROOM = "the server needs 1 MB there, as docker run --tmpfs /tmp gives it"


@contextmanager
def folder(prefix: str = PREFIX, beside: Path | None = None) -> Iterator[Path]:
    """A new folder for this user alone in `beside` (the folder for temporary files), removed afterwards.

    It holds a lock, which the kernel drops when this process is gone, however that ended: folders without are removed.
    """
    with ExitStack() as stack:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=beside)).resolve()
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        lock = stack.enter_context((made / f"{LOCK}.new").open("wb"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        (made / f"{LOCK}.new").rename(made / LOCK)  # nobody sees it without its lock
        for other in made.parent.glob(f"*{PREFIX}*"):
            # Not another user's, nor one that is just being made.
            with suppress(OSError), (other / LOCK).open("rb") as theirs:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
        yield made


@contextmanager
def run_directory() -> Iterator[Path]:
    """A server's. Raises ServeError where there is no folder for temporary files."""
    with ExitStack() as stack:
        try:
            run = stack.enter_context(folder(f"{PREFIX}serve-"))
        except OSError as error:  # also: none of the usual folders can be written
            raise ServeError(f"TMPDIR: no folder for temporary files ({error.strerror}); {ROOM}") from None
        yield run
