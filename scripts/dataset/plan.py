"""Which picture of a folder goes into which split, before anything is copied or sent."""

from collections.abc import Callable, Sequence
from pathlib import Path

from container_train.data.labels import SPLITS
from scripts.dataset import check, folders
from scripts.dataset.folders import FRACTIONS, ClassFiles, DataError
from scripts.dataset.progress import say

SHOWN = 10  # unreadable pictures that are named


def plan(
    source: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0, *, say: Callable[[str], None] = say
) -> dict[str, ClassFiles]:
    """The pictures of train, valid and test of a folder of class folders, split or not; nothing is written.

    What is split here, and pictures that cannot be read, are told to `say`.
    Raises DataError where it cannot be trained on: no class folders, too few pictures, too many unreadable ones.
    """
    splits = divide(folders.find(source), fractions, seed, say)
    refuse(splits, bad := check.unreadable(check.all_files(splits)))
    tell(bad, say, "they are not sent")
    return readable(splits, bad)


def divide(
    found: folders.Found, fractions: Sequence[float], seed: int, say: Callable[[str], None]
) -> dict[str, ClassFiles]:
    for remark in found.remarks:
        say(remark)
    shares = dict(zip(SPLITS, fractions, strict=True))
    if not found.is_split:
        parts = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
        say(f"{found.root} is not split: taking {parts} (seed {seed})")
        return folders.split(found.splits[""], shares, seed)
    missing = [name for name in SPLITS if name not in found.splits]
    if not missing:
        return {name: found.splits[name] for name in SPLITS}
    say(f"{found.root} has no {' and no '.join(missing)}: taken from train (seed {seed})")
    return folders.complete(found, shares, seed)


def readable(splits: dict[str, ClassFiles], bad: Sequence[tuple[Path, str]]) -> dict[str, ClassFiles]:
    """Without those: what cannot be read is not sent anywhere, it may be no picture at all."""
    left_out = {file for file, _ in bad}
    found = {
        split: {name: [file for file in files if file not in left_out] for name, files in classes.items()}
        for split, classes in splits.items()
    }
    if empty := [name for name, files in found["train"].items() if not files]:
        raise DataError(f"class {empty[0]} has no readable picture to train with: add some or remove the folder")
    return found


def tell(bad: Sequence[tuple[Path, str]], say: Callable[[str], None], then: str) -> None:
    """Name the pictures that cannot be read, and say what becomes of them."""
    for file, reason in bad[:SHOWN]:
        say(f"not readable: {file}: {reason}")
    if bad:
        say(f"{len(bad)} image{'s' * (len(bad) != 1)} cannot be read; {then}")


def refuse(splits: dict[str, ClassFiles], bad: Sequence[tuple[Path, str]]) -> None:
    """Raises DataError where training would end at once for the pictures that cannot be read."""
    total = sum(folders.count(splits).values())
    if len(bad) > check.MAX_BAD_SHARE * total:
        raise DataError(
            f"{len(bad)} of {total} pictures cannot be read, more than the {check.MAX_BAD_SHARE:.0%} that training"
            f" skips, such as {bad[0][0]} ({bad[0][1]}): remove or replace them"
        )
