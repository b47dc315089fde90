"""Unpack a zip of images from somewhere, trusting nothing in it."""

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from container_train.data.listing import is_hidden
from container_train.errors import DataError
from local_test.errors import naming

MAX_BYTES = 50 * 10**9  # unpacked
MAX_RATIO = 100  # of all files together; a JPEG does not shrink, a plain BMP by some tens
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, UnicodeDecodeError, EOFError, NotImplementedError, RuntimeError,
)  # fmt: skip


def unzip(archive: Path, target: Path) -> None:
    """Unpack `archive` into the new folder `target`.

    Raises DataError, before anything is written, for a path that leads outside, a link, an encrypted file, a
    name that comes twice, or contents out of all proportion to the file's size; later, for a damaged file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _check(archive, opened)
            target.mkdir()
            for place, info in members.items():
                (target / place).parent.mkdir(parents=True, exist_ok=True)
                # zipfile gives at most the size in the header, which was counted, and checks the CRC.
                with naming(target / place), opened.open(info) as source, (target / place).open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except _DAMAGE as error:
        raise DataError(f"{archive} is damaged or no zip file: {error}") from None
    except OSError as error:
        if error.errno is None:  # bz2's way of telling of damage
            raise DataError(f"{archive} is damaged: {error}") from None
        raise


def _check(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files by their paths."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in opened.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if info.is_dir() or any(is_hidden(part) for part in path.parts if part != ".."):
            continue
        outside = not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
        for wrong, why in (
            (outside or "\0" in info.orig_filename, "which leads outside the folder: refused"),
            (stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG), "a link or device: refused"),
            (str(path) in members, "whose name comes twice: refused"),
            (info.flag_bits & 0x1, "which is encrypted: unpack it yourself and give the folder"),
        ):
            if wrong:
                raise DataError(f"{archive} holds {info.filename!r}, {why}")
        members[str(path)] = info
    unpacked, size = sum(info.file_size for info in members.values()), archive.stat().st_size
    if unpacked > min(MAX_BYTES, MAX_RATIO * size):
        raise DataError(
            f"{archive} ({size / 1e6:.1f} MB) would unpack to {unpacked / 1e6:.0f} MB: refused as a decompression bomb"
        )
    return members
