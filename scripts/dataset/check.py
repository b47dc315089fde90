"""Checks of a set of images before it is copied or sent anywhere: training could use it."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from container_serve.image import FORMATS, HEIC, is_heic
from container_train.data.listing import HEAD_BYTES, MAX_BAD_SHARE
from container_train.data.splits import ClassFiles, Plan
from container_train.errors import DataError
from container_train.progress import in_threads

SHOWN = 10  # unreadable images that are named


def readable(plan: Plan, say: Callable[[str], None], then: str = "they are not sent") -> dict[str, ClassFiles]:
    """The plan's splits without the images that cannot be read, which are named to `say`, as are the plan's notes.

    Raises DataError where training would end at once: for too many of them, or a class of nothing else.
    """
    for note in plan.notes:
        say(note)
    files = [file for _, file in plan.files()]
    bad = unreadable(files)
    if len(bad) > MAX_BAD_SHARE * len(files):
        few = f"more than the {MAX_BAD_SHARE:.0%} that training skips, such as {bad[0][0]} ({bad[0][1]})"
        raise DataError(f"{len(bad)} of {len(files)} images cannot be read, {few}: remove or replace them")
    for file, reason in bad[:SHOWN]:
        say(f"not readable: {file}: {reason}")
    if bad:
        say(f"{len(bad)} image{'s' * (len(bad) != 1)} cannot be read; {then}")
    left_out = {file for file, _ in bad}
    found: dict[str, ClassFiles] = {
        split: {name: [file for file in members if file not in left_out] for name, members in classes.items()}
        for split, classes in plan.splits.items()
    }
    if empty := [name for name, members in found["train"].items() if not members]:
        raise DataError(f"class {empty[0]} has no readable image to train with: add some or remove the folder")
    return found


def unreadable(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Files that do not begin as an image does; a truncated one shows only when training decodes it."""

    def look(file: Path) -> tuple[Path, str] | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with file.open("rb") as opened:
                    if is_heic(opened.read(HEAD_BYTES)):
                        return file, HEIC
                with Image.open(file, formats=FORMATS) as picture:
                    picture.verify()
        except UnidentifiedImageError:
            return file, f"no image of a kind that is read ({', '.join(FORMATS)})"
        except Exception as error:  # Pillow's decoders raise almost anything (SyntaxError, struct.error ...)
            return file, str(error) or type(error).__name__
        return None

    return [found for found in in_threads(look, files, "checking images", os.cpu_count() or 1) if found]
