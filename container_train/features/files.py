"""Features on disk: computed once for a set of images and of frozen layers, then mapped into memory by anybody.

A FeatureFile is a folder, named by the digest of all that decides its numbers. It has a file for each feature with one
row per image, to which rows are added at the end, and a header with their number. Only rows that the header names
count, and it names what is on the disk: after a kill the next process continues there, and of a copy that was taken at
any moment (the platform copies the checkpoint folder) as many rows count as all files have.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from container_train import paths

log = logging.getLogger(__name__)

FORMAT = 3
HEADER = "header.json"
LOCK_SECONDS = 0.5
SYNC_SECONDS = 10.0  # between two times that rows are made sure of: a kill costs at most these

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
        self.header: dict[str, Any] = {"format": FORMAT, "fields": dict(fields), "rows": rows, "features": shapes}
        self.path = folder / hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()).hexdigest()[:32]
        self.files = [self.path / f"{number}.bin" for number in range(len(sample))]
        self.by, self.have, self.synced = "", 0, 0.0  # the program that computed so many rows

    def read(self) -> Features | None:
        """Return all rows, mapped into memory; None if some are missing or damaged."""
        if not self.rows:  # more processes than images
            return tuple(like[:0] for like in self.sample)
        if self._look() != self.rows:
            return None
        mapped = (  # copy on write: the files stay as they are
            torch.from_file(str(file), shared=False, size=self.rows * like[0].numel(), dtype=like.dtype)
            for file, like in zip(self.files, self.sample, strict=True)
        )
        return tuple(m.reshape(self.rows, *like.shape[1:]) for m, like in zip(mapped, self.sample, strict=True))

    def done(self, by: str) -> int:
        """Return how many rows exist that the program `by` has computed."""
        rows = self._look()
        return rows if self.by == by else 0

    def resume(self, by: str, rows: int) -> None:
        """Prepare to append after the first `rows` of `done`. Raises FeatureFileError."""
        self.by, self.have = by, rows
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for file, like in zip(self.files, self.sample, strict=True):
                file.touch()
                os.truncate(file, rows * like[0].nbytes)
        self.sync()

    def append(self, features: Features) -> None:
        """Add rows. Raises FeatureFileError; the rows before stay good."""
        with _writing(self.path):
            for file, feature in zip(self.files, features, strict=True):
                with file.open("ab") as stream:
                    stream.write(feature.contiguous().view(torch.uint8).numpy().data)
        self.have += len(features[0])
        if time.monotonic() - self.synced >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Put all rows on the disk, then their number. Raises FeatureFileError."""
        with _writing(self.path):
            for file in self.files:
                with file.open("ab") as stream:
                    os.fsync(stream.fileno())
            header = {**self.header, "by": self.by, "done": self.have}
            paths.replace_file(self.path / HEADER, json.dumps(header, indent=1).encode())
        self.synced = time.monotonic()

    def _look(self) -> int:
        """Read the header, and return the number of rows that all files have."""
        self.by, self.have = "", 0
        try:
            header = json.loads((self.path / HEADER).read_text())
            there = [file.stat().st_size // like[0].nbytes for file, like in zip(self.files, self.sample, strict=True)]
            self.by, self.have = str(header["by"]), min(int(header["done"]), self.rows, *there)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("feature cache: %s cannot be used (%s) and is computed again", self.path, error)
        return self.have


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
