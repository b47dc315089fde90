"""The names of splits and classes, and the order of classes. No other package is needed: every script can use it."""

import re

SPLITS = ("train", "valid", "test")

_PREFIX = re.compile(r"^\d+[._ -]+(?=\S)")


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key by which 10 comes after 9: the order of the classes."""
    return [(0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"(\d+)", name) if part]


def label(folder: str) -> str:
    """`017.Beagle` -> `Beagle`; a folder that is only a number keeps it."""
    return _PREFIX.sub("", folder)
