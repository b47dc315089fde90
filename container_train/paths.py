"""The folder tree that the platform gives a training container, and the failure file in it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# DescribeTrainingJob shows this many characters of the failure file as FailureReason.
FAILURE_CHARACTERS = 1024


class SageMakerPaths:
    """Paths below `base`: /opt/ml, or SAGEMAKER_BASE_DIR where a job runs as a plain process.

    `own` is a folder below the checkpoint folder, where other jobs may write to that, too.
    """

    def __init__(self, base: Path, own: str = "") -> None:
        self.base = base
        self.config, self.channels = base / "input" / "config", base / "input" / "data"
        self.model, self.output = base / "model", base / "output" / "data"
        self.failure = base / "output" / "failure"
        self.success = base / "output" / "success"  # the toolkit's mark that the program succeeded
        self.checkpoints = base / "checkpoints" / own

    @classmethod
    def from_environment(cls) -> "SageMakerPaths":
        """BYOC_OWN_CHECKPOINTS says that all trials of a search share one place in S3 for their checkpoints."""
        own = os.environ.get("TRAINING_JOB_NAME", "") if os.environ.get("BYOC_OWN_CHECKPOINTS") else ""
        return cls(Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"), own)

    def write_failure(self, message: str, detail: str = "") -> None:
        """Write the failure file; the message comes first because only FAILURE_CHARACTERS of it are shown.

        Where there is no tree at all, a program was called by hand: none is made.
        """
        if not self.base.is_dir():
            return
        text = message if not detail else f"{message}\n\n{detail}"
        self.failure.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.failure, text.encode())


def shared() -> Path | None:
    """Return the folder for features and checks of images that BYOC_FEATURE_CACHE names, for the trials of a search."""
    named = os.environ.get("BYOC_FEATURE_CACHE", "").strip()
    return Path(named) if named else None


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either what it held before or all of it."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when all was written; after an error `path` is as before."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # one of a write names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Write the names in `folder` to the disk, too."""
    with contextlib.suppress(OSError):  # not every file system knows how
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[], BaseException]) -> Iterator[None]:
    """Hold a folder, or a file that is made where it is missing. Raises busy() while another process holds it.

    The lock is the kernel's: it ends with its process, however that ends.
    """
    descriptor = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT), 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy() from None
        except OSError:  # a network's file system that has no locks
            pass
        if not os.fstat(descriptor).st_nlink:  # it was removed by its holder, and another one may be there by now
            raise busy()
        yield
    finally:
        os.close(descriptor)
