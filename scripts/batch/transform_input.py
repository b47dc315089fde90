"""The images of a transform job: those of a folder, uploaded first, or those below a prefix in S3."""

import json
from dataclasses import dataclass
from pathlib import Path

from container_train.data import listing
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
from scripts.batch.transform_spec import MAX_MIB, MIB
from scripts.console.command import progress
from scripts.dataset.source import Source
from scripts.endpoints import stored_images
from scripts.s3 import objects, storage
from scripts.s3.objects import s3_location
from scripts.s3.storage import Item

FOLDER = "images"  # below the prefix of an upload, beside its manifest.json


@dataclass(frozen=True)
class Images:
    """`keys` are relative to `prefix`; sizes in bytes."""

    prefix: S3Uri
    keys: list[str]
    largest: int
    size: int

    def manifest(self) -> bytes:
        """Return the list as the service takes it."""
        return json.dumps([{"prefix": f"{self.prefix}/"}, *self.keys]).encode()


def files(folder: str) -> list[Path]:
    """Return the images in a folder. Raises CloudError where there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise CloudError(f"--data {folder}: no such folder; give one, or s3://BUCKET/PREFIX", 2)
    found, others = listing.divide(listing.files(root))
    if others:
        progress(listing.of_others([str(other) for other in others]))
    if not found:
        raise CloudError(f"--data {folder}: no images in this folder", 2)
    return found


def home(folder: str, settings: Settings) -> S3Uri:
    """Return where a folder's images go, beside a list of them."""
    return settings.home() / "batch" / Source(folder).name


def place(folder: str, settings: Settings) -> S3Uri:
    """Return the prefix of the images themselves."""
    return home(folder, settings) / FOLDER


def uploads(folder: str) -> list[Item]:
    """Return the files to send, under their keys relative to `home`."""
    return [Item(f"{FOLDER}/{path.relative_to(folder)}", path, path.stat().st_size) for path in files(folder)]


def uploaded(aws: Aws, folder: str, settings: Settings) -> Images:
    """Send what is not there yet of a folder's images."""
    items = uploads(folder)
    storage.upload(aws, items, home(folder, settings), settings)
    sizes = {item.key.removeprefix(f"{FOLDER}/"): item.size for item in items}
    return _images(place(folder, settings), sizes)


def stored(aws: Aws, uri: S3Uri) -> Images:
    """Return the images below a prefix in S3, and tell of what is left out."""
    found = stored_images.below(aws, uri)
    if found.others:
        progress(listing.of_others(found.others))
    return _images(uri, found.images)


def write_manifest(aws: Aws, images: Images, place: S3Uri, settings: Settings) -> None:
    request = {**s3_location(place), "Body": images.manifest(), "ContentType": "application/json"}
    send(aws, Request("s3", "PutObject", {**request, **objects.encryption(settings)}))


def read_manifest(aws: Aws, place: S3Uri) -> tuple[S3Uri, list[str]]:
    """Return the prefix and the keys relative to it. Raises botocore's errors."""
    content = json.loads(aws.client("s3").get_object(**s3_location(place))["Body"].read())
    return S3Uri.parse(content[0]["prefix"], "prefix"), content[1:]


def _images(prefix: S3Uri, sizes: dict[str, int]) -> Images:
    if large := next((key for key, size in sizes.items() if size > MAX_MIB * MIB), None):
        raise CloudError(
            f"{prefix / large} is larger than {MAX_MIB} MiB, which batch transform cannot send: leave it out", 2
        )
    return Images(prefix, sorted(sizes), max(sizes.values()), sum(sizes.values()))
