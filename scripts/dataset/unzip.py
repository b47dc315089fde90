"""Unpack a zip of images from somewhere, trusting nothing in it."""

import lzma
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
    """Unpack the files of `archive` that are not hidden into the new folder `target`; none of them gets outside of it.

    Raises DataError, before anything is written, for contents out of all proportion to the file's size; later, for a
    damaged or encrypted file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            unpacked, size = sum(info.file_size for info in members), archive.stat().st_size
            if unpacked > min(MAX_BYTES, MAX_RATIO * size):
                sizes = f"({size / 1e6:.1f} MB) would unpack to {unpacked / 1e6:.0f} MB"
                raise DataError(f"{archive} {sizes}: refused as a decompression bomb")
            target.mkdir()
            for info in members:
                info.filename = info.filename.replace("\\", "/")  # as some programs for Windows write it
                if not any(map(is_hidden, PurePosixPath(info.filename).parts)):
                    # zipfile drops what leads outside, makes no links, gives at most the size in the header, which was
                    # counted, and checks the CRC.
                    with naming(target / info.filename):
                        opened.extract(info, target)
    except _DAMAGE as error:
        raise DataError(f"{archive} is damaged, encrypted or no zip file: {error}") from None
    except OSError as error:
        if error.errno is None:  # bz2's way of telling of damage
            raise DataError(f"{archive} is damaged: {error}") from None
        raise
