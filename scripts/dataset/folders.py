"""Class folders: finding them, in train/valid/test or not, splitting them, and laying a split out on disk."""

import contextlib
import os
import random
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from container_train.labels import SPLITS, natural

# What people call the three; the first name that is there counts.
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MIN_PER_CLASS = 3  # one for each split
FRACTIONS = (0.8, 0.1, 0.1)

ClassFiles = dict[str, list[Path]]
"""Pictures by the name of their class folder, both in natural order."""


class DataError(Exception):
    """What is wrong with a folder of pictures, where, and what to do, in one line."""


@dataclass(frozen=True)
class Found:
    """What a folder holds: `splits` has the key "" where it is not split, else those of SPLITS there are."""

    root: Path
    splits: dict[str, ClassFiles]
    folders: dict[str, Path]

    @property
    def is_split(self) -> bool:
        return "" not in self.splits


def is_hidden(name: str) -> bool:
    """Dot files, and the resource forks that macOS packs beside every file."""
    return name.startswith(".") or name == "__MACOSX"


def pictures_below(folder: Path) -> list[Path]:
    """Files with a picture's suffix, at any depth, hidden ones left out. DataError where links lead in a circle."""
    found: list[Path] = []
    seen = {folder.resolve()}

    def refuse(error: OSError) -> None:
        raise DataError(
            f"the folder {error.filename} cannot be read ({error.strerror}): make it readable, or remove it"
        )

    for parent, names, files in os.walk(folder, followlinks=True, onerror=refuse):
        names[:] = [name for name in names if not is_hidden(name)]
        for link in (path for name in names if (path := Path(parent, name)).is_symlink()):
            real = link.resolve()
            if real in seen or folder.resolve().is_relative_to(real):
                raise DataError(f"{link} leads to {real}, whose pictures are taken already: remove that link")
            seen.add(real)
        found += [
            _ordinary(Path(parent, name))
            for name in files
            if not is_hidden(name) and os.path.splitext(name)[1].lower() in PICTURES  # noqa: PTH122 (100 times faster)
        ]
    return sorted(found, key=lambda path: natural(str(path.relative_to(folder))))


def _ordinary(path: Path) -> Path:
    """Whoever reads a pipe waits for ever, and a device has no end."""
    with contextlib.suppress(OSError):  # a link to nothing, which is named as a picture that cannot be read
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is no ordinary file, but a pipe, a device or the like: remove it")
    return path


def find(root: Path) -> Found:
    """Find the class folders of `root`. Raises DataError saying what is there, and what was expected."""
    if not root.exists():
        raise DataError(f"{root} is not there: --data takes a folder of class folders (or `sample`)")
    if not root.is_dir():
        hint = "; unpack it with scripts/prepare_data.py" if root.suffix == ".zip" else ""
        raise DataError(f"{root} is a file, not a folder of class folders{hint}")
    below = _folders(root)
    folders = {
        split: below[name]
        for split, names in SPLIT_NAMES.items()
        for name in [next((n for n in names if n in below), "")]
        if name
    }
    # `train` may also be the class of pictures of trains: a split holds folders, and no pictures of its own.
    if "train" in folders and _folders(folders["train"]) and not _own_pictures(folders["train"]):
        splits = {split: class_files(folder) for split, folder in folders.items()}
        unknown = {split: sorted(set(classes) - set(splits["train"]), key=natural) for split, classes in splits.items()}
        for split, names in unknown.items():
            if names:
                raise DataError(
                    f"{folders[split] / names[0]}: this class is not in {folders['train'].name}/"
                    f"{f' (nor are {len(names) - 1} more)' if len(names) > 1 else ''}:"
                    " every class needs training pictures"
                )
        return Found(root, splits, folders)
    classes = class_files(root)
    few = [name for name, files in classes.items() if len(files) < MIN_PER_CLASS]
    if few:
        raise DataError(
            f"{root / few[0]} has {len(classes[few[0]])} picture(s): a class needs at least {MIN_PER_CLASS},"
            " one each to train, validate and test with; add some or remove the folder"
        )
    return Found(root, {"": classes}, {"": root})


def class_files(folder: Path) -> ClassFiles:
    """Pictures by class folder. Raises DataError unless there are two classes or more, each with pictures."""
    below = _folders(folder)
    expected = f"expected {folder}/CLASS/picture.jpg, or {folder}/train/CLASS/picture.jpg"
    if not below:
        loose = len(_own_pictures(folder))
        what = f"{loose} pictures but no class folders" if loose else "no class folders"
        raise DataError(f"{folder} has {what}: {expected}")
    if len(below) == 1:
        ((name, only),) = below.items()
        if _folders(only) and not _own_pictures(only):
            raise DataError(f"{folder} holds only the folder {name}, which holds folders: give {only} instead")
        raise DataError(f"{folder} has one class ({name}): a classifier needs at least two")
    classes = {name: pictures_below(path) for name, path in sorted(below.items(), key=lambda item: natural(item[0]))}
    empty = [name for name, files in classes.items() if not files]
    if len(empty) == len(classes):
        raise DataError(f"{folder} has {len(classes)} folders but no pictures in them: {expected}")
    if empty:
        raise DataError(f"{folder / empty[0]} has no pictures ({', '.join(sorted(PICTURES))}): add some or remove it")
    nested = [name for name, path in below.items() if not _own_pictures(path) and len(_folders(path)) > 1]
    if nested and len(nested) == len(below):
        raise DataError(f"{folder / nested[0]} holds folders, not pictures: {expected}")
    return classes


def split(classes: ClassFiles, fractions: Mapping[str, float], seed: int) -> dict[str, ClassFiles]:
    """Split every class in these proportions; the same files and seed give the same split.

    Every split gets at least one picture of every class, so a class needs as many pictures as splits.
    """
    total = sum(fractions.values())
    result: dict[str, ClassFiles] = {name: {} for name in fractions}
    for folder, files in classes.items():
        if len(files) < len(fractions):
            raise DataError(
                f"class {folder} has {len(files)} picture(s): a class needs at least {len(fractions)},"
                f" one for each of {', '.join(fractions)}; add some or remove the folder"
            )
        # Seeded by the class's name too: adding a class leaves the split of the others as it was.
        shuffled = random.Random(f"{seed} {folder}").sample(files, len(files))
        names = list(fractions)
        counts = {name: max(1, round(len(files) * fractions[name] / total)) for name in names[1:]}
        while sum(counts.values()) > len(files) - 1:
            counts[max(counts, key=lambda name: counts[name])] -= 1
        start = 0
        for name in names[1:]:
            result[name][folder] = sorted(shuffled[start : start + counts[name]])
            start += counts[name]
        result[names[0]][folder] = sorted(shuffled[start:])
    return result


def complete(found: Found, fractions: Mapping[str, float], seed: int) -> dict[str, ClassFiles]:
    """All three splits of a folder that has train: those that are missing are taken from train."""
    missing = [name for name in SPLITS if name not in found.splits]
    taken = split(found.splits["train"], {name: fractions[name] for name in ("train", *missing)}, seed)
    return {name: taken[name] if name in taken else found.splits[name] for name in SPLITS}


def named(splits: Mapping[str, ClassFiles]) -> Iterator[tuple[str, Path]]:
    """("train/001.Affenpinscher/a.jpg", the file) of every picture: its place in the finished set, and its source."""
    for name, classes in splits.items():
        for folder, files in classes.items():
            taken: set[str] = set()
            for file in files:
                yield f"{name}/{folder}/{_free_name(file.name, taken)}", file


def lay_out(splits: Mapping[str, ClassFiles], target: Path) -> None:
    """Make target/SPLIT/CLASS/picture: hard links where that works, copies elsewhere; sources stay."""
    for name, classes in splits.items():
        for folder in classes:
            (target / name / folder).mkdir(parents=True)
    for place, file in named(splits):
        link(file, target / place)


def link(source: Path, target: Path) -> None:
    if source.is_symlink() and not source.exists():
        target.symlink_to(source.absolute())  # to nothing: the training names it and passes over it
        return
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def count(splits: Mapping[str, ClassFiles]) -> dict[str, int]:
    return {name: sum(map(len, classes.values())) for name, classes in splits.items()}


def _free_name(name: str, taken: set[str]) -> str:
    """Pictures of one class may have lain in several folders under the same name."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    number = 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.lower())
    return name


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)}


def _own_pictures(folder: Path) -> Sequence[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not is_hidden(path.name) and path.is_file()
    ]
