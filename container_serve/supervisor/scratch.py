"""Temporary folders, and what servers have left that were killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from container_serve.errors import ServeError

PREFIX, LOCK = "byoc-serve-", "lock"
ROOM = "the server needs 1 MB there, as docker run --tmpfs /tmp gives it"


@contextmanager
def run_directory() -> Iterator[Path]:
    """A new temporary folder for this user alone, removed afterwards. Raises ServeError.

    It holds a lock, which the kernel drops when this process is gone, however that ended: folders without are removed.
    """
    with ExitStack() as stack:
        try:
            run = Path(tempfile.mkdtemp(prefix=PREFIX))
            stack.callback(shutil.rmtree, run, ignore_errors=True)
            lock = stack.enter_context((run / f"{LOCK}.new").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            (run / f"{LOCK}.new").rename(run / LOCK)  # nobody sees it without its lock
        except OSError as error:  # also: none of the usual folders can be written
            raise ServeError(f"TMPDIR: no folder for temporary files ({error.strerror}); {ROOM}") from None
        for other in run.parent.glob(f"{PREFIX}*"):
            # Not another user's, nor one that is just being made.
            with suppress(OSError), (other / LOCK).open("rb") as theirs:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
        yield run
