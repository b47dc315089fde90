"""Pictures that an earlier training of the same search has decoded: not looked into again while they are the same."""

import contextlib
import json
import os
from pathlib import Path

from container_train.features.location import VARIABLE
from container_train.paths import replace_file

FILE = "pictures.json"


class ChecksumCache:
    """name -> what the file system says of the file, the SHA-256 of its content, and its perceptual hash; only of
    readable pictures.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.files: dict[str, list[str | int]] = {}
        self.learned = False
        if folder is not None:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((folder / FILE).read_text())
                self.files = {name: entry for name, entry in found.items() if len(entry) == 6}

    @classmethod
    def of_search(cls, scratch: Path | None = None) -> "ChecksumCache":
        """In the folder that the trials of a search share, or the processes of a host; elsewhere nothing is known."""
        named = os.environ.get(VARIABLE, "").strip()
        return cls(Path(named)) if named else cls(scratch)

    def find(self, name: str, path: Path) -> tuple[str, bytes] | None:
        entry = self.files.get(name)
        return (str(entry[4]), bytes.fromhex(str(entry[5]))) if entry and entry[:4] == _state(path) else None

    def add(self, name: str, path: Path, content: str, similar: bytes) -> None:
        self.files[name] = [*_state(path), content, similar.hex()]
        self.learned = True

    def save(self) -> None:
        """For the next training; where it cannot be written, that one looks for itself."""
        if self.folder is None or not self.learned:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / FILE, json.dumps(self.files).encode())


def _state(path: Path) -> list[str | int]:
    """Device and inode, too: a file that took another's place is not taken for it."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]
