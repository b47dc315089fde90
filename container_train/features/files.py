"""Features on disk: computed once for a set of pictures and of frozen layers, and then read memory-mapped by anybody.

An entry is a folder, named by the digest of all that decides its numbers, with a file for each feature, of one row a
picture, and a header that says how many rows are there and what their checksums are. Rows are added in chunks, and
count only when the header names them: a process that is killed leaves a shorter entry that the next one goes on with,
and a copy that was taken at any moment (the platform's of the checkpoint folder) is either right or found out.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from container_train.paths import replace_file

log = logging.getLogger(__name__)

FORMAT = 1
HEADER = "header.json"
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
LOCK_SECONDS, SAY_SECONDS = 0.5, 15.0

Features = tuple[torch.Tensor, ...]  # what the frozen layers hand on: each (N, ...)


class FeatureFileError(Exception):
    """An entry cannot be written; the message says why."""


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FeatureFileError(f"{path} cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True)
class FeatureSpec:
    """What the frozen layers give for one picture: for each feature its type, and its shape without the batch."""

    features: tuple[tuple[torch.dtype, tuple[int, ...]], ...]

    @classmethod
    def of(cls, features: Features) -> "FeatureSpec":
        return cls(tuple((feature.dtype, tuple(feature.shape[1:])) for feature in features))

    def sizes(self) -> list[int]:
        """Bytes a picture, feature by feature."""
        return [dtype.itemsize * math.prod(shape) for dtype, shape in self.features]

    def to_list(self) -> list[list[Any]]:
        return [[str(dtype).removeprefix("torch."), list(shape)] for dtype, shape in self.features]


class FeatureFile:
    """The features of `rows` pictures in a folder below `folder`; `fields` is all that decides their numbers."""

    def __init__(self, folder: Path, fields: Mapping[str, Any], rows: int, layout: FeatureSpec) -> None:
        self.fields, self.rows, self.layout = dict(fields), rows, layout
        words = json.dumps([FORMAT, self.fields, rows, layout.to_list()], sort_keys=True)
        self.path = folder / hashlib.sha256(words.encode()).hexdigest()[:32]
        self.by = ""
        self.chunks: list[list[int]] = []  # rows, then the checksum of each feature's bytes

    def read(self) -> Features | None:
        """All rows, mapped into memory; None where some are missing or are not what they were."""
        self._look()
        return self._mapped() if self._done() == self.rows else None

    def resume(self, by: str) -> int:
        """Prepare for `append` of what `by` computes; returns the rows that exist. Raises FeatureFileError."""
        self._look()
        if self.by != by:
            self.by, self.chunks = by, []
        done = self._done()
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for file, size in zip(self._files(), self.layout.sizes(), strict=True):
                with file.open("ab"):
                    os.truncate(file, done * size)
        return done

    def append(self, features: Features) -> None:
        """Add a chunk of rows. Raises FeatureFileError; what was there before stays good."""
        with _writing(self.path):
            self._append(features)

    def _append(self, features: Features) -> None:
        chunk = [len(features[0])]
        for file, feature in zip(self._files(), features, strict=True):
            content = feature.contiguous().view(torch.uint8).numpy().tobytes()
            with file.open("ab") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            chunk.append(zlib.crc32(content))
        self.chunks.append(chunk)
        header = {
            "format": FORMAT, "fields": self.fields, "by": self.by, "rows": self.rows,
            "layout": self.layout.to_list(), "chunks": self.chunks,
        }  # fmt: skip
        replace_file(self.path / HEADER, json.dumps(header, indent=1).encode())

    def _files(self) -> list[Path]:
        return [self.path / f"{number}.bin" for number in range(len(self.layout.features))]

    def _done(self) -> int:
        return sum(rows for rows, *_ in self.chunks)

    def _look(self) -> None:
        """Take the header's word for what is there, as far as the files bear it out."""
        self.by, self.chunks = "", []
        try:
            header = json.loads((self.path / HEADER).read_text())
            if header["format"] != FORMAT or header["fields"] != self.fields or header["rows"] != self.rows:
                raise ValueError("its header speaks of something else")
            by, chunks = str(header["by"]), [[int(number) for number in chunk] for chunk in header["chunks"]]
            good = self._verified(chunks)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("feature cache: %s cannot be used (%s) and is made anew", self.path, error)
            return
        if good < len(chunks):
            log.warning("feature cache: %s is damaged from chunk %d of %d on", self.path, good + 1, len(chunks))
        self.by, self.chunks = by, chunks[:good]

    def _verified(self, chunks: Sequence[Sequence[int]]) -> int:
        """How many chunks, from the first on, are what they were when they were written."""
        if sum(chunk[0] for chunk in chunks) > self.rows or any(len(c) != 1 + len(self._files()) for c in chunks):
            raise ValueError("its header contradicts itself")
        sizes = self.layout.sizes()
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(file.open("rb")) for file in self._files()]
            for number, (rows, *sums) in enumerate(chunks):
                for stream, size, checksum in zip(streams, sizes, sums, strict=True):
                    content = stream.read(rows * size)
                    if len(content) != rows * size or zlib.crc32(content) != checksum:
                        return number
        return len(chunks)

    def _mapped(self) -> Features:
        columns = []
        for file, (dtype, shape) in zip(self._files(), self.layout.features, strict=True):
            # Copy on write: torch wants memory that it could write to, the file stays as it is.
            mapped = np.memmap(file, dtype=np.uint8, mode="c", shape=(self.rows * dtype.itemsize * math.prod(shape),))
            columns.append(torch.from_numpy(mapped).view(dtype).reshape(self.rows, *shape))
        return tuple(columns)


@contextlib.contextmanager
def locked(entry: FeatureFile, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only one who writes `entry`. While another process does, `waiting` is called now and then.

    The kernel releases the lock of a process that ends. Raises FeatureFileError where no lock can be made.
    """
    with contextlib.ExitStack() as stack:
        with _writing(entry.path):
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(entry.path.with_suffix(".lock").open("w"))
        started = time.monotonic()
        said = -math.inf
        while not _lock(file):
            now = time.monotonic()
            if now - said >= SAY_SECONDS:
                said = now
                log.info("feature cache: waiting for another process that fills it (%.0f s)", now - started)
            waiting()
            time.sleep(LOCK_SECONDS)
        yield


def _lock(file: IO[str]) -> bool:
    with _writing(Path(file.name)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
