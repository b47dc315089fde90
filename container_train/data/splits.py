"""The images of train, valid and test in a folder of class folders, split already or not. Needs no torch."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from container_serve.image import FORMATS
from container_train.data import listing
from container_train.data.files import Files
from container_train.data.labels import SAMPLE, SPLIT_NAMES, SPLITS, natural, split_folders
from container_train.data.listing import Listing
from container_train.data.unused import Unused
from container_train.errors import DataError

FRACTIONS = (0.8, 0.1, 0.1)
SEED = 0

ClassFiles = Mapping[str, Sequence[Path]]  # images by the name of their class, both in natural order


@dataclass(frozen=True)
class Plan:
    """The images of each split in SPLITS.

    `folders` has those splits that are used as they are on the disk. `notes` are sentences for the user: on what is
    split, on files that are not used, on classes whose names look the same. Those `beside` the splits' folders are
    among them, too.
    """

    splits: Mapping[str, ClassFiles]
    folders: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """All three splits are used as they are on the disk."""
        return len(self.folders) == len(SPLITS)

    def files(self) -> Iterator[tuple[str, Path]]:
        """("train/001.Affenpinscher/a.jpg", the file) of every image: its place in the set, and its source."""
        return placed(self.splits)


def plan(root: Path, fractions: Sequence[float] = FRACTIONS, seed: int = SEED) -> Plan:
    """Plan the splits of `root`; writes nothing. Missing splits are taken from train.

    Raises DataError saying what is there, and what was expected.
    """
    if not root.exists():
        raise DataError(f"{root}: no such folder: --data takes a folder of class folders (or `{SAMPLE}`)")
    if not root.is_dir():
        hint = "; unpack it with scripts/prepare_data.py" if root.suffix == ".zip" else ""
        raise DataError(f"{root} is a file, not a folder of class folders{hint}")
    shares = dict(zip(SPLITS, fractions, strict=True))
    if not _is_split(root):
        listed = class_files(root)
        parts = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
        note = f"{root} is not split: taking {parts} of every class (seed {seed})"
        return Plan(divide(listed.classes, shares, seed, root), {}, [*listing.remarks([listed]), note])
    below = [name for name, paths in listing.class_folders(root).items() if len(paths) == 1]
    try:
        named = split_folders(below)
    except ValueError as error:
        raise DataError(f"{root}: {error}") from None
    listings = {split: class_files(root / name, name) for split, name in named.items()}
    listing.check_classes(listings)
    beside = _beside(root, named, below)
    notes = beside + listing.remarks(list(listings.values()))
    folders = {split: root / named[split] for split in SPLITS if split in named}
    splits: Mapping[str, ClassFiles] = {split: listings[split].classes for split in folders}
    if missing := [split for split in SPLITS if split not in named]:
        notes.append(f"{root} has no {' and no '.join(missing)}: taken from train (seed {seed})")
        taken = divide(splits["train"], {split: shares[split] for split in ("train", *missing)}, seed, root)
        splits = {split: taken.get(split) or splits[split] for split in SPLITS}
        folders = {split: folder for split, folder in folders.items() if split not in taken}
    return Plan(splits, folders, notes, beside)


def _is_split(root: Path) -> bool:
    """`train` may also be the class of images of trains: a split holds folders, and images of its own only where
    another split is there.
    """
    there = [root / name for names in SPLIT_NAMES.values() for name in names if (root / name).exists()]
    splits = {path.name for path in there if path.is_dir()}
    if splits and (file := next((path for path in there if path.name not in splits), None)):
        raise DataError(f"{file} is a file, not a folder of class folders: remove it, or rename it")
    nested = {name for name in splits if listing.class_folders(root / name)}
    train = nested & set(SPLIT_NAMES["train"])
    return any(nested - train or not listing.own_images(root / name) for name in train)


def _beside(root: Path, named: Mapping[str, str], below: Sequence[str]) -> list[str]:
    found = Unused(name for name in below if name not in named.values())
    for path in root.iterdir():
        if path.is_file() and not listing.is_hidden(path.name):
            found.add(path.name)
    shown = ", ".join(found.first) + (" ..." if len(found) > len(found.first) else "")
    return [f"not used: {shown}, beside the folders of the splits"] if found else []


def class_files(folder: Path, name: str = "") -> Listing:
    """List `folder`, called `name` in remarks; images in natural order.

    Raises DataError unless there are two classes or more, each with images.
    """
    listed = listing.read(folder, name)
    expected = f"expected {folder}/CLASS/image.jpg" + ("" if name else f", or {folder}/train/CLASS/image.jpg")
    below = {label: paths[0] for label, paths in listed.folders.items()}
    if not below:
        loose = len(listing.own_images(folder))
        what = f"{loose} images but no class folders" if loose else "no class folders"
        raise DataError(f"{folder} has {what}: {expected}")
    if len(below) == 1:
        ((label, only),) = below.items()
        if listing.class_folders(only) and not listing.own_images(only):
            raise DataError(f"{folder} holds only the folder {label}, which holds folders: give {only} instead")
        raise DataError(f"{folder} has one class ({label}): a classifier needs at least two")
    if empty := [label for label, files in listed.classes.items() if not files]:
        if len(empty) == len(below):
            raise DataError(f"{folder} has {len(below)} folders but no images in them: {expected}")
        raise DataError(f"{below[empty[0]]} has no images ({', '.join(FORMATS)}): add some or remove it")
    if all(len(listing.class_folders(path)) > 1 and not listing.own_images(path) for path in below.values()):
        raise DataError(f"{next(iter(below.values()))} holds folders, not images: {expected}")
    classes = {label: Files(folder, sorted(files.names(), key=natural)) for label, files in listed.classes.items()}
    return replace(listed, classes=classes)


def divide(classes: ClassFiles, shares: Mapping[str, float], seed: int, root: Path) -> Mapping[str, ClassFiles]:
    """Split every class in these proportions; the same files and seed give the same split.

    Every split gets at least one image of every class. Raises DataError for a class of fewer images than splits.
    """
    first, *others = shares
    result: dict[str, dict[str, list[Path]]] = {name: {} for name in shares}
    for label, files in classes.items():
        if len(files) < len(shares):
            raise DataError(
                f"{root}: class {label} has {len(files)} image(s): a class needs at least {len(shares)},"
                f" one each for {', '.join(shares)}; add some or remove the folder"
            )
        # Seeded by the class's name too: adding a class leaves the split of the others as it was.
        shuffled = random.Random(f"{seed} {label}").sample(files, len(files))
        counts = {name: max(1, round(len(files) * shares[name] / sum(shares.values()))) for name in others}
        while sum(counts.values()) > len(files) - 1:
            counts[max(counts, key=lambda name: counts[name])] -= 1
        for name, count in counts.items():
            result[name][label], shuffled = sorted(shuffled[:count]), shuffled[count:]
        result[first][label] = sorted(shuffled)
    return result


def placed(splits: Mapping[str, ClassFiles]) -> Iterator[tuple[str, Path]]:
    """Images of one class may have lain in several folders under the same name: the second becomes a-2.jpg."""
    for split, classes in splits.items():
        for label, files in classes.items():
            taken: set[str] = set()
            numbers: Counter[str] = Counter()  # the last one that was given to a name
            for file in files:
                (stem, suffix), name, first = os.path.splitext(file.name), file.name, file.name.lower()  # noqa: PTH122
                while name.lower() in taken:
                    numbers[first] = max(numbers[first], 1) + 1
                    name = f"{stem}-{numbers[first]}{suffix}"
                taken.add(name.lower())
                yield f"{split}/{label}/{name}", file


def lay_out(splits: Mapping[str, ClassFiles], target: Path) -> None:
    """Make target/SPLIT/CLASS/IMAGE: hard links where that works, copies elsewhere; sources stay."""
    for split, classes in splits.items():
        for label in classes:
            (target / split / label).mkdir(parents=True)
    for place, file in placed(splits):
        link(file, target / place)


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file, or a copy where the disk is another one."""
    if source.is_symlink() and not source.exists():
        target.symlink_to(source.absolute())  # to nothing: the training names it and passes over it
        return
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def count(splits: Mapping[str, ClassFiles]) -> dict[str, int]:
    """The number of images of each split."""
    return {split: sum(map(len, classes.values())) for split, classes in splits.items()}
