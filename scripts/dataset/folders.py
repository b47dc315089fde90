"""Class folders: finding them, in train/valid/test or not, splitting them, and laying a split out on disk."""

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from container_serve.image import FORMATS
from container_train.data import listing
from container_train.data.labels import SPLIT_NAMES, SPLITS, natural, split_folders
from container_train.data.listing import Listing
from container_train.errors import DataError as DataError

MIN_PER_CLASS = 3  # one for each split
FRACTIONS = (0.8, 0.1, 0.1)

ClassFiles = dict[str, list[Path]]
"""Images by the name of their class, both in natural order."""


@dataclass(frozen=True)
class Found:
    """The content of a folder: `splits` has the key "" where it is not split, else those of SPLITS there are.

    `remarks` are sentences on files that are not used, and on classes whose names look the same. `beside`, on what lies
    beside the folders of the splits, is among them.
    """

    root: Path
    splits: dict[str, ClassFiles]
    folders: dict[str, Path]
    remarks: list[str]
    beside: list[str]

    @property
    def is_split(self) -> bool:
        return "" not in self.splits


def find(root: Path) -> Found:
    """Find the class folders of `root`. Raises DataError saying what is there, and what was expected."""
    if not root.exists():
        raise DataError(f"{root} is not there: --data takes a folder of class folders (or `sample`)")
    if not root.is_dir():
        hint = "; unpack it with scripts/prepare_data.py" if root.suffix == ".zip" else ""
        raise DataError(f"{root} is a file, not a folder of class folders{hint}")
    if _is_split(root):
        return _split_already(root)
    listed = class_files(root)
    few = [name for name, files in listed.classes.items() if len(files) < MIN_PER_CLASS]
    if few:
        raise DataError(
            f"{root / few[0]} has {len(listed.classes[few[0]])} picture(s): a class needs at least {MIN_PER_CLASS},"
            " one each to train, validate and test with; add some or remove the folder"
        )
    return Found(root, {"": listed.classes}, {"": root}, listing.remarks([listed]), [])


def _is_split(root: Path) -> bool:
    """`train` may also be the class of pictures of trains: a split holds folders, and pictures of its own only where
    another split is there.
    """
    splits = {name for names in SPLIT_NAMES.values() for name in names if (root / name).is_dir()}
    nested = {name for name in splits if listing.class_folders(root / name)}
    train = nested & set(SPLIT_NAMES["train"])
    return any(nested - train or not listing.own_images(root / name) for name in train)


def _split_already(root: Path) -> Found:
    below = [name for name, paths in listing.class_folders(root).items() if len(paths) == 1]
    try:
        named = split_folders(below)
    except ValueError as error:
        raise DataError(f"{root}: {error}") from None
    listed = {split: class_files(root / name, name) for split, name in named.items()}
    train = listed["train"]
    for split, name in named.items():
        strange = sorted(set(listed[split].classes) - set(train.classes), key=natural)
        if strange:
            raise DataError(
                f"{root / name / strange[0]}: this class is not in {train.name}/"
                f"{f' (nor are {len(strange) - 1} more)' if len(strange) > 1 else ''}:"
                " every class needs training pictures"
            )
    names = [name for name in below if name not in named.values()]
    names += sorted(path.name for path in root.iterdir() if path.is_file() and not listing.is_hidden(path.name))
    shown = ", ".join(names[: listing.SHOWN]) + (" ..." if len(names) > listing.SHOWN else "")
    beside = [f"not used: {shown}, beside the folders of the splits"] if names else []
    return Found(
        root,
        {split: found.classes for split, found in listed.items()},
        {split: root / name for split, name in named.items()},
        beside + listing.remarks(list(listed.values())),
        beside,
    )


def class_files(folder: Path, name: str = "") -> Listing:
    """List `folder`, called `name` in remarks; images in natural order.

    Raises DataError unless there are two classes or more, each with images.
    """
    listed = listing.read(folder, name)
    expected = f"expected {folder}/CLASS/picture.jpg, or {folder}/train/CLASS/picture.jpg"
    below = {label: paths[0] for label, paths in listed.folders.items()}
    if not below:
        loose = len(listing.own_images(folder))
        what = f"{loose} pictures but no class folders" if loose else "no class folders"
        raise DataError(f"{folder} has {what}: {expected}")
    if len(below) == 1:
        ((label, only),) = below.items()
        if listing.class_folders(only) and not listing.own_images(only):
            raise DataError(f"{folder} holds only the folder {label}, which holds folders: give {only} instead")
        raise DataError(f"{folder} has one class ({label}): a classifier needs at least two")
    empty = [label for label, files in listed.classes.items() if not files]
    if len(empty) == len(below):
        raise DataError(f"{folder} has {len(below)} folders but no pictures in them: {expected}")
    if empty:
        kinds = ", ".join(FORMATS)
        raise DataError(f"{below[empty[0]]} has no pictures ({kinds}): add some or remove it")
    nested = [path for path in below.values() if len(listing.class_folders(path)) > 1 and not listing.own_images(path)]
    if len(nested) == len(below):
        raise DataError(f"{nested[0]} holds folders, not pictures: {expected}")
    for files in listed.classes.values():
        files.sort(key=lambda path: natural(str(path.relative_to(folder))))
    return listed


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
