"""Temporary folders."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from container_serve.errors import ServeError

ROOM = "the server needs 1 MB there, as docker run --tmpfs /tmp gives it"


@contextmanager
def private_directory(prefix: str) -> Iterator[Path]:
    """A temporary folder for this user alone, removed in the end. Raises ServeError."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:  # also: none of the usual folders can be written
        raise ServeError(f"TMPDIR: no folder for temporary files ({error.strerror}); {ROOM}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
