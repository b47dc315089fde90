"""Features on disk: computed once for a set of images and of frozen layers, then mapped into memory by anybody.

A FeatureFile is a folder, named by the digest of all that decides its numbers. It has a file for each feature with one
row per image, and a header with the number and checksums of the rows, which are added in chunks. Only rows that the
header names count, and it names what is on the disk: after a kill the next process continues there, and a copy that
was taken at any moment (the platform copies the checkpoint folder) is either right or detected.
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

FORMAT = 2
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
        self.by = ""
        self.chunks: list[list[int]] = []  # rows, then the checksum of each feature's bytes
        self.synced = 0.0

    def read(self) -> Features | None:
        """Return all rows, mapped into memory; None if some are missing or damaged."""
        if not self.rows:  # more processes than images
            return tuple(like[:0] for like in self.sample)
        if self._verified_rows() != self.rows:
            return None
        mapped = (  # copy on write: the files stay as they are
            torch.from_file(str(file), shared=False, size=self.rows * like[0].numel(), dtype=like.dtype)
            for file, like in zip(self.files, self.sample, strict=True)
        )
        return tuple(m.reshape(self.rows, *like.shape[1:]) for m, like in zip(mapped, self.sample, strict=True))

    def done(self, by: str) -> int:
        """Return how many rows exist that the program `by` has computed."""
        rows = self._verified_rows()
        return rows if self.by == by else 0

    def resume(self, by: str, rows: int) -> int:
        """Prepare to append to the chunks within the first `rows` of `done`; return their rows.

        Raises FeatureFileError.
        """
        kept, total = [], 0
        for chunk in self.chunks if self.by == by else ():
            if total + chunk[0] > rows:
                break
            kept.append(chunk)
            total += chunk[0]
        self.by, self.chunks, self.synced = by, kept, time.monotonic()
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for file, like in zip(self.files, self.sample, strict=True):
                file.touch()
                os.truncate(file, total * like[0].nbytes)
        return total

    def append(self, features: Features) -> None:
        """Add a chunk of rows. Raises FeatureFileError; the rows before stay good."""
        chunk = [len(features[0])]
        with _writing(self.path):
            for file, feature in zip(self.files, features, strict=True):
                content = feature.contiguous().view(torch.uint8).numpy().data
                with file.open("ab") as stream:
                    stream.write(content)
                chunk.append(zlib.crc32(content))
        self.chunks.append(chunk)
        if time.monotonic() - self.synced >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Put all rows on the disk, then their number. Raises FeatureFileError."""
        with _writing(self.path):
            for file in self.files:
                with file.open("ab") as stream:
                    os.fsync(stream.fileno())
            header = {**self.header, "by": self.by, "chunks": self.chunks}
            paths.replace_file(self.path / HEADER, json.dumps(header, indent=1).encode())
        self.synced = time.monotonic()

    def _verified_rows(self) -> int:
        """Read the header, and keep its chunks up to the first damaged one."""
        self.by, self.chunks = "", []
        try:
            header = json.loads((self.path / HEADER).read_text())
            chunks = [[int(number) for number in chunk] for chunk in header["chunks"]]
            with contextlib.ExitStack() as stack:
                streams = [stack.enter_context(file.open("rb")) for file in self.files]
                for rows, *checksums in chunks:
                    content = [s.read(rows * like[0].nbytes) for s, like in zip(streams, self.sample, strict=True)]
                    if list(map(zlib.crc32, content)) != checksums:
                        log.warning("feature cache: %s is damaged from chunk %d on", self.path, len(self.chunks) + 1)
                        break
                    self.chunks.append([rows, *checksums])
            self.by = str(header["by"])
        except FileNotFoundError:
            self.chunks = []
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("feature cache: %s cannot be used (%s) and is computed again", self.path, error)
            self.chunks = []
        return sum(rows for rows, *_ in self.chunks)


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
