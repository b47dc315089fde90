"""model.tar.gz from a model folder, and back, as the platform does between training and serving."""

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from container_train.paths import replacing
from local_test.errors import LocalError

# Weights hardly shrink: the fastest level loses about 1 % and saves most of the time.
LEVEL = 1
_PIECE = 1 << 20


def pack(folder: Path, target: Path) -> None:
    """All files below `folder`, in order, without times and owners: the same model gives the same bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise LocalError(f"training left no model in {folder}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(target) as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            member.mode = 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)


def unpack(archive: Path, target: Path, largest: int | None = None) -> None:
    """Into the folder `target`. Raises LocalError for an archive that is damaged, leads outside, or is too large."""
    if archive.exists() and not archive.is_file():  # a named pipe would be waited for
        raise LocalError(f"{archive} is not a regular file: give a model.tar.gz", 2)
    try:
        with archive.open("rb") as stream:
            unpack_stream(stream, target, str(archive), largest)
    except FileNotFoundError as error:
        if error.filename != str(archive):
            raise
        raise LocalError(
            f"{archive}: no such file: give a model.tar.gz, or train first: local_test/run.sh", 2
        ) from None


def unpack_stream(stream: BinaryIO, target: Path, name: str, largest: int | None = None) -> None:
    """The same from an open file, read to its end, so that a cut or changed archive is found; `name` is for errors."""
    size = 0

    def checked(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
        nonlocal size
        size += member.size + tarfile.BLOCKSIZE
        if largest and size > largest:
            raise LocalError(f"{name} unpacks to more than {largest / 1e9:g} GB")
        return tarfile.data_filter(member, folder)

    try:
        with gzip.GzipFile(fileobj=stream) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            target.mkdir(parents=True, exist_ok=True)
            tar.extractall(target, filter=checked)
            while packed.read(_PIECE):
                pass  # gzip's checksum stands behind the last byte
    except (tarfile.FilterError, ValueError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise LocalError(f"{name} holds a file that cannot be below its folder ({error}): refused") from None
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LocalError(f"{name} is damaged, or not a .tar.gz archive: {error}") from None
