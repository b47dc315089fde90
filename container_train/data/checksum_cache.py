"""Checks of images that an earlier training of the same search made: not made again while the files are the same."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from container_serve.image import decode
from container_train.data.duplicates import perceptual_hash
from container_train.features.location import VARIABLE
from container_train.paths import replace_file

FILE = "images.json"
Entry = list[str | int]  # the file's size, time, inode and device; its SHA-256, and its perceptual hash


class ChecksumCache:
    """Maps the name of a readable image to its file's state, its SHA-256, and its perceptual hash."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.files: dict[str, Entry] = {}
        self.changed = False
        if folder is not None:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((folder / FILE).read_text())
                self.files = {name: entry for name, entry in found.items() if len(entry) == 6}

    @classmethod
    def of_search(cls) -> "ChecksumCache":
        """Use the folder that the trials of a search share, if there is one."""
        named = os.environ.get(VARIABLE, "").strip()
        return cls(Path(named) if named else None)

    def check(self, name: str, path: Path) -> Entry:
        """Return the image's entry; decodes the image if it is new. Raises RequestError, OSError."""
        found = path.stat()
        state = [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]  # also detects a replaced file
        entry = self.files.get(name)
        if entry is not None and entry[:4] == state:
            return entry
        body = path.read_bytes()
        return [*state, hashlib.sha256(body).hexdigest(), perceptual_hash(decode(body)).hex()]

    def learn(self, name: str, entry: Entry) -> None:
        self.changed |= self.files.get(name) != entry
        self.files[name] = entry

    def save(self) -> None:
        """Write the file for the next training; if that fails, the next one checks for itself."""
        if self.folder is not None and self.changed:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(self.folder / FILE, json.dumps(self.files).encode())
