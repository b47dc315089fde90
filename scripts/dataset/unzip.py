"""Unpack a zip of pictures from somewhere, trusting nothing in it."""

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
MAX_RATIO = 100  # of all pictures together; a JPEG does not shrink, a plain BMP by some tens
MAX_FILES = 2_000_000


def unzip(archive: Path, target: Path) -> list[str]:
    """Unpack the images of `archive` into the new folder `target`; gives the names of others, which are left out.

    Raises DataError, before anything is written, for a path that leads outside, a link, an encrypted file, a
    name that comes twice, or contents out of all proportion to the file's size; later, for a damaged file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            wanted, others = _check(archive, opened, members)
            _check_size(archive, wanted, target.parent)
            target.mkdir()
            for info, path in wanted:
                file = target.joinpath(*path.parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                # zipfile gives at most the size in the header, which was counted above, and checks the CRC.
                with opened.open(info) as source, file.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            return others
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        UnicodeDecodeError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{archive} is damaged or no zip file: {error}") from None
    except OSError as error:
        if error.errno is None:  # bz2's way of telling of damage
            raise DataError(f"{archive} is damaged: {error}") from None
        raise


def _check(
    archive: Path, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo]
) -> tuple[list[tuple[zipfile.ZipInfo, PurePosixPath]], list[str]]:
    wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    names: set[str] = set()
    others: list[str] = []
    if len(members) > MAX_FILES:
        raise DataError(f"{archive} has {len(members)} files, more than {MAX_FILES}: refused")
    for info in members:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or ":" in path.parts[0]
            or "\0" in info.orig_filename
        ):
            raise DataError(f"{archive} holds {info.filename!r}, which leads outside the folder: refused")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise DataError(f"{archive} holds {info.filename!r}, a link or device: refused")
        if info.flag_bits & 0x1:
            raise DataError(f"{archive} is encrypted ({info.filename!r}): unpack it yourself and give the folder")
        if any(is_hidden(part) for part in path.parts):
            continue
        if not is_image(path.name, b"") and not is_image(path.name, _head(opened, info)):
            others.append(str(path))
            continue
        if str(path).lower() in names:
            raise DataError(f"{archive} holds {info.filename!r} twice: refused")
        names.add(str(path).lower())
        wanted.append((info, path))
    if not wanted:
        raise DataError(f"{archive} holds no pictures ({', '.join(FORMATS)})")
    return wanted, others


def _head(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with opened.open(info) as member:
        return member.read(HEAD_BYTES)


def _check_size(archive: Path, wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]], where: Path) -> None:
    unpacked = sum(info.file_size for info, _ in wanted)
    size = archive.stat().st_size
    if unpacked > MAX_BYTES or unpacked > MAX_RATIO * size:
        raise DataError(
            f"{archive} ({size / 1e6:.1f} MB) would unpack to {unpacked / 1e6:.0f} MB: refused as a decompression bomb"
        )
    free = shutil.disk_usage(where).free
    if unpacked > free:
        raise DataError(f"{archive} unpacks to {unpacked / 1e6:.0f} MB but {where} has {free / 1e6:.0f} MB free")
