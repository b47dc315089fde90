"""Features on disk: computed once for a set of images and of frozen layers, then mapped into memory by anybody.

A FeatureFile is a folder, named by the digest of all that decides its numbers. It has a file for each feature with one
row per image. While they are computed it has another name: what a kill leaves is never read.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from container_train import paths

log = logging.getLogger(__name__)

FORMAT = 3
LOCK_SECONDS = 0.5

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

    def read(self) -> Features | None:
        """Return all rows, mapped into memory; None if they are not there."""
        if not self.rows:  # more processes than images
            return tuple(like[:0] for like in self.sample)
        sizes = {f"{number}.bin": self.rows * like[0].nbytes for number, like in enumerate(self.sample)}
        there = {file.name: file.stat().st_size for file in self.path.glob("*.bin")}
        return self._mapped(self.path, shared=False) if there == sizes else None  # not shared: copied when written to

    def _mapped(self, folder: Path, *, shared: bool) -> Features:
        return tuple(
            torch.from_file(
                str(folder / f"{number}.bin"), shared=shared, size=self.rows * like[0].numel(), dtype=like.dtype
            ).reshape(self.rows, *like.shape[1:])
            for number, like in enumerate(self.sample)
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[Features]:
        """Yield the rows to be filled, mapped; at the end they are there for all. Raises FeatureFileError."""
        temporary = self.path.with_suffix(".tmp")
        try:
            with _writing(self.path):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                for number, like in enumerate(self.sample):
                    with (temporary / f"{number}.bin").open("wb") as file:  # a full disk would end who writes to a map
                        os.posix_fallocate(file.fileno(), 0, self.rows * like[0].nbytes)
            yield self._mapped(temporary, shared=True)
            with _writing(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
                temporary.rename(self.path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
