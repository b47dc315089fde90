"""Unpack a zip of images from somewhere, trusting nothing in it."""

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from container_serve.image import FORMATS
from container_train.data.listing import HEAD_BYTES, is_hidden, is_image
from container_train.errors import DataError

MAX_BYTES = 50 * 10**9  # unpacked
MAX_RATIO = 100  # of all images together; a JPEG does not shrink, a plain BMP by some tens
MAX_FILES = 2_000_000
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, UnicodeDecodeError, EOFError, NotImplementedError, RuntimeError,
)  # fmt: skip


def unzip(archive: Path, target: Path) -> list[str]:
    """Unpack the images of `archive` into the new folder `target`; gives the names of others, which are left out.

    Raises DataError, before anything is written, for a path that leads outside, a link, an encrypted file, a
    name that comes twice, or contents out of all proportion to the file's size; later, for a damaged file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            images, others = _check(archive, opened)
            target.mkdir()
            for place, info in images:
                (target / place).parent.mkdir(parents=True, exist_ok=True)
                # zipfile gives at most the size in the header, which was counted, and checks the CRC.
                with opened.open(info) as source, (target / place).open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            return others
    except _DAMAGE as error:
        raise DataError(f"{archive} is damaged or no zip file: {error}") from None
    except OSError as error:
        if error.errno is None:  # bz2's way of telling of damage
            raise DataError(f"{archive} is damaged: {error}") from None
        raise


def _check(archive: Path, opened: zipfile.ZipFile) -> tuple[list[tuple[PurePosixPath, zipfile.ZipInfo]], list[str]]:
    """The images and their paths, and the names of others."""
    members = [info for info in opened.infolist() if not info.is_dir()]
    if len(members) > MAX_FILES:
        raise DataError(f"{archive} has {len(members)} files, more than {MAX_FILES}: refused")
    images: dict[str, tuple[PurePosixPath, zipfile.ZipInfo]] = {}
    others: list[str] = []
    for info in members:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        outside = not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
        for wrong, why in (
            (outside or "\0" in info.orig_filename, "which leads outside the folder: refused"),
            (stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG), "a link or device: refused"),
            (str(path).lower() in images, "whose name comes twice: refused"),
            (info.flag_bits & 0x1, "which is encrypted: unpack it yourself and give the folder"),
        ):
            if wrong:
                raise DataError(f"{archive} holds {info.filename!r}, {why}")
        if any(is_hidden(part) for part in path.parts):
            continue
        if not is_image(path.name, b"") and not is_image(path.name, opened.open(info).read(HEAD_BYTES)):
            others.append(str(path))
        else:
            images[str(path).lower()] = path, info
    if not images:
        raise DataError(f"{archive} holds no images ({', '.join(FORMATS)})")
    unpacked, size = sum(info.file_size for _, info in images.values()), archive.stat().st_size
    if unpacked > min(MAX_BYTES, MAX_RATIO * size):
        raise DataError(
            f"{archive} ({size / 1e6:.1f} MB) would unpack to {unpacked / 1e6:.0f} MB: refused as a decompression bomb"
        )
    return list(images.values()), others
