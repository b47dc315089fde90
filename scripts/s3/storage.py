"""Files in S3: sets of images, single files, and whether there is something to train on."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from container_train.data.labels import SPLIT_NAMES, SPLITS
from container_train.data.splits import ClassFiles, placed
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.parallel import THREADS, gather
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.dataset.progress import Progress
from scripts.s3 import bucket as buckets
from scripts.s3 import manifest as manifests
from scripts.s3.bucket import owner
from scripts.s3.manifest import NAME as MANIFEST
from scripts.s3.objects import HASH, check_key, digest, encryption, is_there, put, s3_location
from scripts.s3.sync import Item as Item
from scripts.s3.sync import Sync
from scripts.s3.sync import Uploaded as Uploaded


def items(splits: Mapping[str, ClassFiles]) -> list[Item]:
    """The files of a plan, under the names that splits.lay_out gives them."""
    return [Item(key, path, path.stat().st_size) for key, path in placed(splits)]


def requests(items: Sequence[Item], prefix: S3Uri, settings: Settings) -> list[Request]:
    """Return the requests of an upload to an empty prefix: for --dry-run. Reads the files, for their hashes."""
    for item in items:
        check_key((prefix / item.key).key, item.path)
    hashes = gather(lambda item: digest(item.path), items)
    manifest = {**s3_location(prefix / MANIFEST), "Body": MANIFEST, "ContentType": "application/json"}
    return [
        *(put(item.path, sha256, prefix / item.key, settings) for item, sha256 in zip(items, hashes, strict=True)),
        Request("s3", "PutObject", {**manifest, **encryption(settings)}),
    ]


def file_request(path: Path, uri: S3Uri, settings: Settings) -> Request:
    """Return what upload_file sends, in parts where the file is large."""
    check_key(uri.key, path)
    return put(path, digest(path), uri, settings)


def upload(aws: Aws, items: Sequence[Item], prefix: S3Uri, settings: Settings, threads: int = THREADS) -> Uploaded:
    """Make the prefix equal to `items`: send what is not there, delete what an earlier upload sent and is gone.

    Raises CloudError, before anything is sent, for objects there that no upload of this program sent; Interrupted
    for Ctrl-C. However it ends, the next call continues from there.
    """
    return Sync(aws, items, prefix, settings, threads).run()


def upload_file(aws: Aws, path: Path, uri: S3Uri, settings: Settings) -> bool:
    """Send one file of any size to this very key, unless it exists already; return whether it was sent."""
    before = path.stat()
    metadata = file_request(path, uri, settings).request["Metadata"]
    buckets.require(aws, uri.bucket, create=True)
    if is_there(aws, uri, metadata[HASH], before.st_size, settings):
        progress(f"{uri} already exists, unchanged")
        return False
    progress(f"sending {path} ({before.st_size / 1e6:.0f} MB) to {uri}")
    extra = {"Metadata": metadata, "ChecksumAlgorithm": "SHA256", **owner(uri.bucket), **encryption(settings)}
    extra.pop("BucketKeyEnabled", None)  # which s3transfer does not know
    with Progress(str(uri), before.st_size) as bar:
        aws.client("s3").upload_file(str(path), uri.bucket, uri.key, ExtraArgs=extra, Callback=bar.update)
    if path.stat().st_mtime_ns != before.st_mtime_ns:
        aws.client("s3").delete_object(**s3_location(uri))
        raise CloudError(f"{path} was changed while it was being sent: call this again")
    return True


def require_data(aws: Aws, prefix: S3Uri) -> None:
    """Raises CloudError unless there are objects below train/, valid/ and test/ of `prefix`, and no upload that broke
    off."""
    buckets.require(aws, prefix.bucket)

    def holds(name: str) -> bool:
        """Consoles show folders by empty objects."""
        return any(item["Size"] for _, item in buckets.below(aws, prefix / name))

    if missing := [split for split in SPLITS if not holds(split)]:
        others = [(name, split) for split in missing for name in SPLIT_NAMES[split][1:] if holds(name)]
        if others:
            renaming = " and ".join(f"{name}/ to {split}/" for name, split in others)
            raise CloudError(f"{prefix}: rename {renaming} (`aws s3 mv --recursive`), as the channels are called")
        lacking = " and ".join(f"{name}/" for name in missing)
        raise CloudError(
            f"{prefix} has no images below {lacking}: send them, scripts/prepare_data.py DIR --s3 {prefix}"
        )
    manifest = None
    with suppress(CloudError):  # data may lie there that another program sent
        manifest = manifests.read(aws, prefix)
    if manifest is not None and not manifest.complete:
        raise CloudError(f"the upload to {prefix} has not ended: call scripts/prepare_data.py again as before")
