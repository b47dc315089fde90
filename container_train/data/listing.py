"""Folders of class folders: their classes, the images in them, and the files that are not used.

Training and the scripts list folders here, so that a file is used by all of them or by none. Needs no torch.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from container_serve.artifact import is_litter
from container_train.data.labels import natural
from container_train.errors import DataError

SHOWN = 5  # files that a message names
MAX_BAD_SHARE = 0.05  # of all files: with more that cannot be read, there is no training
HEAD_BYTES = 32
# Of files that are images, or are meant to be: one that cannot be read is named as such. Others are known by their
# first bytes.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II[*+]\0|MM\0[*+]"
    rb"|.{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1|avif|avis)",
    re.DOTALL,
)


def is_hidden(name: str) -> bool:
    """Return True for the name of a file or folder that is ignored without a message."""
    return name.startswith(".") or is_litter(name)


def is_image(name: str, head: bytes) -> bool:
    """Return True if a file is meant to be an image, by its name and its first HEAD_BYTES; it may be broken."""
    return os.path.splitext(name)[1].lower() in SUFFIXES or bool(_IMAGE.match(head))  # noqa: PTH122


@dataclass(frozen=True)
class Listing:
    """A folder of class folders, called `name` in messages.

    `classes` has the images of each class, in natural order. `folders` has the folders of each class: two if their
    names differ only in their Unicode form. Not used are `loose`, files beside the class folders, and `others`, files
    in them that are no images.
    """

    root: Path
    name: str
    folders: dict[str, list[Path]]
    classes: dict[str, list[Path]]
    loose: list[Path]
    others: list[Path]

    def shown(self, path: Path) -> str:
        """Return the name of a file below `root` in messages."""
        return str(Path(self.name, path.relative_to(self.root)))


@dataclass(frozen=True)
class Split:
    """The images below `root`, in a fixed order, the index of each one's class, and their perceptual hashes.

    The hashes are duplicates.HASH_BYTES for each image, one after another; empty if nobody asked for them.
    """

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    root: Path = Path()
    hashes: bytes = b""

    def __len__(self) -> int:
        return len(self.paths)

    def shown(self, index: int) -> str:
        """Return the name of an image in messages: train/Beagle/1.jpg."""
        return str(Path(self.name, self.paths[index].relative_to(self.root)))

    def subset(self, name: str, indices: Iterable[int]) -> "Split":
        """Return some of the images, without hashes, as the split `name`."""
        chosen = list(indices)
        paths, targets = tuple(self.paths[i] for i in chosen), tuple(self.targets[i] for i in chosen)
        return replace(self, name=name, paths=paths, targets=targets, hashes=b"")


def read(root: Path, name: str = "") -> Listing:
    """List `root`. Raises DataError as `files` and `class_folders` do."""
    folders = class_folders(root)
    classes: dict[str, list[Path]] = {}
    others: list[Path] = []
    for label, parts in folders.items():
        classes[label], rest = divide(path for part in parts for path in files(part))
        others += rest
    loose = [_utf8(path) for path in root.iterdir() if not is_hidden(path.name) and not path.is_dir()]
    return Listing(root, name, folders, classes, sorted(loose), others)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders of each class, by its name in Unicode's form NFC (macOS writes another one than Linux).

    Raises DataError for a name that is not UTF-8.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)):
        found.setdefault(unicodedata.normalize("NFC", _utf8(path).name), []).append(path)
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def files(folder: Path) -> list[Path]:
    """List every file at any depth; follows links to folders, and leaves out hidden files and litter.

    Raises DataError for a folder that cannot be read, links that lead in a circle, names that are not UTF-8, and pipes.
    """
    found: list[Path] = []
    home = folder.resolve()
    seen = {home}

    def refuse(error: OSError) -> None:
        raise DataError(
            f"the folder {error.filename} cannot be read ({error.strerror}): make it readable, or remove it"
        )

    for parent, names, members in os.walk(folder, followlinks=True, onerror=refuse):
        names[:] = [_utf8(Path(parent, name)).name for name in names if not is_hidden(name)]
        for link in (path for name in names if (path := Path(parent, name)).is_symlink()):
            real = link.resolve()
            if real in seen or home.is_relative_to(real):
                raise DataError(f"{link} leads to {real}, whose images are used already: remove that link")
            seen.add(real)
        found += [_utf8(Path(parent, name)) for name in members if not is_hidden(name)]
    # Reading a pipe would take forever. A link to nothing is named later, as not readable.
    if odd := [path for path in found if not path.is_file() and path.exists()]:
        raise DataError(f"{odd[0]} is no ordinary file, but a pipe, a device or the like: remove it")
    return sorted(found, key=str)


def _utf8(path: Path) -> Path:
    """Raise DataError for a name that is not UTF-8, as old zip files have them: no log could contain it."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        where = ascii(str(path.parent))[1:-1]
        raise DataError(f"the name {os.fsencode(path.name)!r} in {where} is not UTF-8: rename it") from None
    return path


def divide(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that are images, good or not, and the others."""
    images: list[Path] = []
    others: list[Path] = []
    for path in paths:
        # A suffix saves opening the file.
        (images if is_image(path.name, b"") or is_image(path.name, _head(path)) else others).append(path)
    return images, others


def _head(path: Path) -> bytes:
    """Return the first bytes; JPEG's for a file that cannot be opened, so that it is reported as not readable."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b"\xff\xd8\xff"


def own_images(folder: Path) -> list[Path]:
    """List the images in `folder` itself."""
    return divide(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_file())[0]


def remarks(listings: Sequence[Listing]) -> list[str]:
    """Return sentences on files that are not used, and on names that look the same, in the listings of a data set."""
    loose = [listing.shown(path) for listing in listings for path in listing.loose]
    others = [listing.shown(path) for listing in listings for path in listing.others]
    found = []
    if loose:
        found.append(f"not used: {some(loose)}, beside the class folders; move images into the folder of their class")
    if others:
        found.append(of_others(others))
    for listing in listings:
        twice = [name for name, folders in listing.folders.items() if len(folders) > 1]
        found += [
            f"{listing.shown(listing.folders[name][0])}: {len(listing.folders[name])} folders have this name in"
            " different Unicode forms; they are one class"
            for name in twice
        ]
    classes = dict.fromkeys(name for listing in listings for name in listing.classes)
    found += [
        f"the classes {first} and {second} differ only in upper and lower case: they are two classes"
        for first, second in pairwise(sorted(classes, key=lambda name: (name.casefold(), name)))
        if first.casefold() == second.casefold()
    ]
    return found


def of_others(names: Sequence[str]) -> str:
    """Return the remark on files that are no images."""
    return f"not used: {some(names)}, no images of a kind that is read"


def some(names: Sequence[str]) -> str:
    """Return the number of files and the first of them: `7 files (a, b, c, d, e and 2 more)`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} file{'s' * (len(names) != 1)} ({', '.join(names[:SHOWN])}{more})"
