"""The origin of images: a folder, a zip or a URL, opened as a folder."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from container_train.errors import DataError
from scripts.console.command import progress
from scripts.dataset.download import download
from scripts.dataset.unzip import unzip

DOG_IMAGES = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"
CACHE = "byoc-image-classifier"


@dataclass(frozen=True)
class Source:
    text: str

    @property
    def is_url(self) -> bool:
        return self.text.startswith(("http://", "https://"))

    @property
    def file_name(self) -> str:
        return self.text.partition("?")[0].rpartition("/")[2] or "download.zip"

    @property
    def name(self) -> str:
        """Of the set of images: the folder's, the zip's without its ending."""
        path = Path(self.file_name) if self.is_url else Path(self.text).resolve()
        return path.name if path.is_dir() else path.stem

    def record(self) -> str:
        return self.text if self.is_url else str(Path(self.text).resolve())

    def check(self) -> None:
        """Raises DataError where there is nothing at all; touches no network."""
        if not self.is_url and not Path(self.text).exists():
            raise DataError(f"{self.text}: no such file or folder: give a zip, a folder, a URL, or nothing")

    def archive(self, downloads: Path) -> Path:
        """The zip, also where it is still to be downloaded."""
        return downloads / self.file_name if self.is_url else Path(self.text)

    def cache(self) -> Path:
        """The folder of a download that has no better place, one folder per URL."""
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return caches / CACHE / hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def forget(self, downloads: Path) -> None:
        """Remove what was downloaded: it has been used."""
        if self.is_url:
            self.archive(downloads).unlink(missing_ok=True)

    def open(self, work: Path, downloads: Path) -> Path:
        """Return the folder of images, downloaded into `downloads` and unpacked below `work` as far as needed."""
        self.check()
        if not self.is_url and Path(self.text).is_dir():
            return Path(self.text).resolve()
        archive = self.archive(downloads)
        if self.is_url and not archive.exists():
            progress(f"downloading {self.text} to {archive}")
            download(self.text, archive)
            with archive.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            progress(f"{archive.name}: {archive.stat().st_size:,} bytes, SHA-256 {sha256}")
        progress(f"unpacking {archive}")
        root = work / "zip"
        unzip(archive, root)
        while len(only := list(root.iterdir())) == 1 and only[0].is_dir():  # dogImages.zip has one folder dogImages/
            root = only[0]
        return root
