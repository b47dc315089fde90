"""The images of a transform job: those of a folder, uploaded first, or those below a prefix in S3."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.dataset.source import Source
from scripts.endpoints import stored_images
from scripts.s3 import objects, storage
from scripts.s3.storage import Item

MIB = 2**20
MAX_MIB = 100  # the service's limit, also for the product with the number of requests at once
FOLDER = "images"  # below the prefix of an upload, beside its manifest.json


def files(folder: str) -> list[Path]:
    """Return the images in a folder. Raises CloudError where there are none."""
    from scripts.endpoints import images  # takes a second, for which --help need not wait

    return images.find([folder])


def home(folder: str, settings: Settings) -> S3Uri:
    """Return where a folder's images go, beside a list of them."""
    return settings.home() / "batch" / Source(folder).name


def place(data: str, settings: Settings) -> S3Uri:
    """Return the prefix of the images themselves, for --data in S3 or a folder."""
    return S3Uri.parse(data, "--data") if data.startswith("s3://") else home(data, settings) / FOLDER


def uploads(folder: str) -> list[Item]:
    """Return the files to send, under their keys relative to `home`. Raises CloudError for one that is too large."""
    found = [Item(f"{FOLDER}/{path.relative_to(folder)}", path, path.stat().st_size) for path in files(folder)]
    _check_sizes({str(item.path): item.size for item in found})
    return found


def in_s3(aws: Aws, data: str, settings: Settings) -> dict[str, int]:
    """Return the sizes in bytes of the images, by their keys relative to `place`; those of a folder are sent first."""
    if data.startswith("s3://"):
        prefix = place(data, settings)
        found = stored_images.below(aws, prefix)
        _check_sizes({str(prefix / key): size for key, size in found.items()})
        return found
    items = uploads(data)
    storage.upload(aws, items, home(data, settings), settings)
    return {item.key.removeprefix(f"{FOLDER}/"): item.size for item in items}


def _check_sizes(sizes: Mapping[str, int]) -> None:
    if large := next((name for name, size in sizes.items() if size > MAX_MIB * MIB), None):
        raise CloudError(f"{large} is larger than {MAX_MIB} MiB, which batch transform cannot send: leave it out", 2)


def write_manifest(aws: Aws, prefix: S3Uri, images: Iterable[str], place: S3Uri, settings: Settings) -> None:
    """Put the list of the images there, in the form that the service takes; they are relative to `prefix`."""
    body = json.dumps([{"prefix": f"{prefix}/"}, *sorted(images)]).encode()
    objects.write(aws, place, body, settings, "application/json")


def read_manifest(aws: Aws, place: S3Uri) -> tuple[S3Uri, list[str]]:
    """Return the prefix and the keys relative to it. Raises CloudError where there is no list."""
    body = objects.read(aws, place)
    if body is None:
        raise CloudError(f"{place}, the list of the images, is not there: it has been deleted since the job was made")
    content = json.loads(body)
    return S3Uri.parse(content[0]["prefix"], "prefix"), content[1:]
