"""The names of splits and classes, and the order of classes. No other package is needed: every script can use it."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

SPLITS = ("train", "valid", "test")
SAMPLE = "sample"  # what --data says for the built-in images
# What people call the folders of the three, and their channels.
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}

_NUMBERED = re.compile(r"(\d+)[._ -]+(\S.*)")


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key by which 10 comes after 9: the order of the classes. No two names have the same."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in parts if part], name


def labels(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the classes with these folders, in their order; all different if the folders are.

    A running number in front is left out (`017.Beagle` -> `Beagle`) where it is certain to be one: every folder has
    one, each another; they are padded with zeros or count from 0 or 1; and what follows begins with no digit and is
    different for each. Age ranges (`0-2`), sizes (`1.5mm`) and types (`727-200`) keep their digits.
    """
    found = [_NUMBERED.fullmatch(folder) for folder in folders]
    parts = [(match[1], match[2]) for match in found if match]
    numbers, names = {int(number) for number, _ in parts}, {name for _, name in parts}
    if not parts or not len(folders) == len(parts) == len(numbers) == len(names):
        return tuple(folders)
    padded = any(number.startswith("0") for number, _ in parts) and len({len(number) for number, _ in parts}) == 1
    counting = numbers in (set(range(len(parts))), set(range(1, len(parts) + 1)))
    if not (padded or counting) or any(name[0].isdigit() for name in names):
        return tuple(folders)
    return tuple(name for _, name in parts)


def class_of(folder: str, classes: Container[str]) -> str | None:
    """Return the class that a folder is of, with a running number or without; None if it is none of `classes`."""
    match = _NUMBERED.fullmatch(folder)
    return next((name for name in (folder, match[2] if match else "") if name in classes), None)


def split_folders(there: Iterable[str]) -> dict[str, str]:
    """Return the folder of each split among those that are `there`. Raises ValueError if two are of the same split."""
    known = set(there)
    found = {}
    for split, names in SPLIT_NAMES.items():
        have = [name for name in names if name in known]
        if len(have) > 1:
            raise ValueError(f"{have[0]} and {have[1]} are both taken for {split}: rename or remove one")
        if have:
            found[split] = have[0]
    return found
