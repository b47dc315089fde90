"""Whether a set of pictures is what training can use."""

import os
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from container_serve.picture import FORMATS, HEIC, is_heic
from container_train.data.listing import HEAD_BYTES
from container_train.data.listing import MAX_BAD_SHARE as MAX_BAD_SHARE
from scripts.dataset import folders
from scripts.dataset.folders import ClassFiles, DataError

DOG_COUNTS = {"train": 6680, "valid": 835, "test": 836}
DOG_CLASSES = 133
DOG_BYTES = 1_132_023_110  # of dogImages.zip


def unreadable(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """Files that do not begin as a picture does; a truncated one shows only when training decodes it."""

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

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [found for found in pool.map(look, files) if found]


def dog_size(archive: Path) -> None:
    """Raises DataError unless `archive`, which was downloaded, is as long as dogImages.zip."""
    size = archive.stat().st_size
    if size != DOG_BYTES:
        raise DataError(
            f"{archive} has {size:,} bytes and dogImages.zip {DOG_BYTES:,}: remove the file to download it again, or"
            " take it as it is with --any-counts"
        )


def dog_counts(found: folders.Found, source: Path) -> None:
    """Raises DataError unless `found` is all of dogImages; `source` is what it came from."""
    counts = folders.count(found.splits)
    classes = {name: len(files) for name, files in found.splits.items()}
    if counts != DOG_COUNTS or set(classes.values()) != {DOG_CLASSES}:
        raise DataError(
            f"{source} does not hold all of dogImages: expected {DOG_COUNTS} pictures of {DOG_CLASSES}"
            f" breeds, found {counts} of {classes}; remove the file to download it again, or take it as it is"
            " with --any-counts"
        )


def all_files(splits: Mapping[str, ClassFiles]) -> list[Path]:
    return [file for classes in splits.values() for files in classes.values() for file in files]
