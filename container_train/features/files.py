"""Features on disk: computed once for a set of images and of frozen layers, then mapped into memory by anybody.

A FeatureFile is a folder, named by the digest of all that decides its numbers. It has a file for each feature with one
row per image, to which rows are added at the end. After a kill the next process continues there: of files that were
half written, and of a copy that was taken at any moment (the platform copies the checkpoint folder), as many rows count
as all files have. The checksums of whole files are kept when they are first read.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from container_train import paths

log = logging.getLogger(__name__)

FORMAT = 3
LOCK_SECONDS = 0.5
CHECKSUMS = "crc32.json"

Features = tuple[torch.Tensor, ...]  # the output of the frozen layers: each (N, ...)


class FeatureFileError(Exception):
    """A FeatureFile cannot be written; the message says why."""


class FeatureFile:
    """The features of `rows` images in a folder below `folder`.

    `fields` is all that decides the numbers. `sample` has the features of one image, for their types and shapes.
    """

    def __init__(self, folder: Path, fields: Mapping[str, Any], rows: int, sample: Features) -> None:
        self.rows, self.sample = rows, sample
        shapes = [[str(feature.dtype), list(feature.shape[1:])] for feature in sample]
        described = {"format": FORMAT, "fields": dict(fields), "rows": rows, "features": shapes}
        self.path = folder / hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
        self.files = [self.path / f"{number}.bin" for number in range(len(sample))]
        self.damaged = False

    def read(self) -> Features | None:
        """Return all rows, mapped into memory; None if some are missing or damaged."""
        if not self.rows:  # more processes than images
            return tuple(like[:0] for like in self.sample)
        if self.done() != self.rows:
            return None
        mapped = (  # copy on write: the files stay as they are
            torch.from_file(str(file), shared=False, size=self.rows * like[0].numel(), dtype=like.dtype)
            for file, like in zip(self.files, self.sample, strict=True)
        )
        features = tuple(m.reshape(self.rows, *like.shape[1:]) for m, like in zip(mapped, self.sample, strict=True))
        return features if self._is_whole(features) else None

    def _is_whole(self, features: Features) -> bool:
        """Compare the checksums with those of the first time; they are kept if this is the first time."""
        sums = [zlib.crc32(feature.view(torch.uint8).numpy().data) for feature in features]
        kept = self.path / CHECKSUMS
        try:
            self.damaged = json.loads(kept.read_text()) != sums
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # a folder that cannot be written
                paths.replace_file(kept, json.dumps(sums).encode())
        except (OSError, ValueError):
            self.damaged = True
        if self.damaged:
            log.warning("feature cache: %s is damaged, and computed again", self.path)
        return not self.damaged

    def done(self) -> int:
        """Return the number of rows that all files have; of damaged ones none."""
        if self.damaged or not all(file.is_file() for file in self.files):
            return 0
        there = (file.stat().st_size // like[0].nbytes for file, like in zip(self.files, self.sample, strict=True))
        return min(self.rows, *there)

    def resume(self, rows: int) -> None:
        """Prepare to append after the first `rows` of `done`. Raises FeatureFileError."""
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / CHECKSUMS).unlink(missing_ok=True)
            self.damaged = False
            for file, like in zip(self.files, self.sample, strict=True):
                file.touch()
                os.truncate(file, rows * like[0].nbytes)

    def append(self, features: Features) -> None:
        """Add rows. Raises FeatureFileError; the rows before stay good."""
        with _writing(self.path):
            for file, feature in zip(self.files, features, strict=True):
                with file.open("ab") as stream:
                    stream.write(feature.contiguous().view(torch.uint8).numpy().data)


class _Busy(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(file: FeatureFile, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock to write `file`. While another process holds it, `waiting` is called now and then.

    Raises FeatureFileError if the folder cannot be written.
    """
    told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                with _writing(file.path):
                    file.path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(paths.locked(file.path.with_suffix(".lock"), _Busy))
                break
            except _Busy:
                if not told:
                    log.info("feature cache: waiting for another process that fills it")
                told = True
                waiting()
                time.sleep(LOCK_SECONDS)
        yield


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FeatureFileError(f"{path} cannot be written ({error.strerror or error})") from error
