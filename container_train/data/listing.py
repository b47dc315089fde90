"""Folders of class folders: their classes, the images in them, and the files that are not used.

Training and the scripts list folders here, so that a file is used by all of them or by none. Needs no torch.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from container_serve.artifact import CONTROL, is_litter, visible
from container_train.data.files import Files, shown
from container_train.data.labels import natural
from container_train.data.unused import Unused
from container_train.errors import DataError

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

    `classes` has the images of each class. `folders` has the folders of each class: two if their names differ only in
    their Unicode form. Not used are `loose`, files beside the class folders, and `others`, files in them that are no
    images.
    """

    root: Path
    name: str
    folders: dict[str, list[Path]]
    classes: dict[str, Files]
    loose: Unused
    others: Unused


def read(root: Path, name: str = "") -> Listing:
    """List `root`. Raises DataError as `names` and `class_folders` do."""
    folders = class_folders(root)
    classes: dict[str, Files] = {}
    others = Unused()
    for label, parts in folders.items():
        files = (f"{part.name}/{file}" for part in parts for file in names(part))
        classes[label] = Files(root, _images(root, files, others.add))
    with os.scandir(root) as entries:
        beside = (entry.name for entry in entries if not is_hidden(entry.name) and not _is(entry.is_dir))
        loose = Unused(_checked(root, file) for file in beside)
    return Listing(root, name, folders, classes, loose, others)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders of each class, by its name in Unicode's form NFC (macOS writes another one than Linux).

    Raises DataError for a name that is not UTF-8, or has a control character.
    """
    found: dict[str, list[Path]] = {}
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if not is_hidden(entry.name) and _is(entry.is_dir))
    for name in folders:
        found.setdefault(unicodedata.normalize("NFC", _checked(root, name)), []).append(root / name)
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def files(folder: Path) -> list[Path]:
    """List every file as `names` does."""
    return [folder / name for name in names(folder)]


def names(folder: Path) -> list[str]:
    """List every file at any depth, relative to `folder`; follows links to folders; no hidden files and no litter.

    A folder is read once, and the entry says what a file is: nothing is asked of a file itself unless it is a link.
    Raises DataError for a folder that cannot be read, links that lead in a circle, names as `_checked` does, and pipes.
    """
    found: list[str] = []
    home = folder.resolve()
    seen, waiting = {home}, [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as opened:
                entries = [entry for entry in opened if not is_hidden(entry.name)]
        except OSError as error:
            raise DataError(
                f"the folder {error.filename} cannot be read ({error.strerror}): make it readable, or remove it"
            ) from None
        for entry in entries:
            name = below + _checked(folder / below, entry.name)
            if _is(entry.is_file):
                found.append(name)
            elif _is(entry.is_dir):
                if entry.is_symlink():
                    real = Path(entry.path).resolve()
                    if real in seen or home.is_relative_to(real):
                        raise DataError(
                            f"{entry.path} leads to {real}, whose images are used already: remove that link"
                        )
                    seen.add(real)
                waiting.append(f"{name}/")
            elif os.path.exists(entry.path):  # noqa: PTH110  # no Path for each of a million names
                # Reading a pipe would take forever. A link to nothing is named later, as not readable.
                raise DataError(f"{entry.path} is no ordinary file, but a pipe, a device or the like: remove it")
            else:
                found.append(name)
    return sorted(found)


def _is(kind: Callable[[], bool]) -> bool:
    """Return False for a link that cannot be followed, too."""
    try:
        return kind()
    except OSError:
        return False


def _checked(folder: Path, name: str) -> str:
    """Raise DataError for a name that no log could contain: not UTF-8, as in old zip files, or with a line break."""
    if not name.isprintable() and CONTROL.search(name):
        where = visible(str(folder))
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"the name {os.fsencode(name)!r} in {where} is not UTF-8: rename it") from None
        raise DataError(f"the name {name!r} in {where} has a control character: rename it")
    return name


def divide(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that are images, good or not, and the others."""
    others: list[str] = []
    images = list(_images(Path(), map(str, paths), others.append))
    return [Path(name) for name in images], [Path(name) for name in others]


def _images(root: Path, names: Iterable[str], other: Callable[[str], None]) -> Iterator[str]:
    """Yield the names of images; `other` is called with each of the others."""
    for name in names:
        # A suffix saves opening the file.
        if is_image(name, b"") or is_image(name, _head(root / name)):
            yield name
        else:
            other(name)


def _head(path: Path) -> bytes:
    """Return the first bytes; JPEG's for a file that cannot be opened, so that it is reported as not readable."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b"\xff\xd8\xff"


def own_images(folder: Path) -> list[Path]:
    """List the images in `folder` itself."""
    with os.scandir(folder) as entries:
        plain = [Path(entry.path) for entry in entries if not is_hidden(entry.name) and _is(entry.is_file)]
    return divide(plain)[0]


def remarks(listings: Sequence[Listing]) -> list[str]:
    """Return sentences on files that are not used, and on names that look the same, in the listings of a data set."""
    found, loose, others = [], Unused(), Unused()
    for listing in listings:
        loose.merge(listing.loose, listing.name)
        others.merge(listing.others, listing.name)
    if loose:
        found.append(f"not used: {loose}, beside the class folders; move images into the folder of their class")
    if others:
        found.append(of_others(others))
    for listing in listings:
        found += [
            f"{shown(listing.name, folders[0].name)}: {len(folders)} folders have this name in different Unicode forms;"
            " they are one class"
            for folders in listing.folders.values()
            if len(folders) > 1
        ]
    classes = dict.fromkeys(name for listing in listings for name in listing.classes)
    found += [
        f"the classes {first} and {second} differ only in upper and lower case: they are two classes"
        for first, second in pairwise(sorted(classes, key=lambda name: (name.casefold(), name)))
        if first.casefold() == second.casefold()
    ]
    return found


def of_others(names: Unused | Iterable[str]) -> str:
    """Return the remark on files that are no images."""
    return f"not used: {names if isinstance(names, Unused) else Unused(names)}, no images of a kind that is read"


def check_classes(listings: Mapping[str, Listing]) -> None:
    """Raise DataError for a class of which there are no training images."""
    known = listings["train"].classes
    for split, listed in listings.items():
        if missing := next((name for name in listed.classes if name not in known), None):
            same = next((name for name in known if name.casefold() == missing.casefold()), None)
            raise DataError(
                f"{listed.root}: class {missing!r} of {split} is not in train{f', which has {same!r}' if same else ''}:"
                " every class needs training images"
            )
