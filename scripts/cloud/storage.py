"""Files to S3: only what is not there yet, many at a time, and so that a break costs only what was on the wire.

prepare -> [Item] -> compare with the prefix and its manifest -> send -> delete what is gone -> look once more
"""

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from container_train.labels import SPLITS
from scripts.cloud import bucket as buckets
from scripts.cloud import requests as sending
from scripts.cloud.aws import Aws
from scripts.cloud.bucket import owner
from scripts.cloud.command import Interrupted, progress
from scripts.cloud.errors import CloudError, code_of, explain
from scripts.cloud.manifest import NAME as MANIFEST
from scripts.cloud.manifest import Entry, Manifest, Stored, encryption
from scripts.cloud.names import S3Uri
from scripts.cloud.parallel import THREADS, each
from scripts.cloud.requests import Request
from scripts.cloud.settings import Settings
from scripts.dataset import folders
from scripts.dataset.folders import DataError
from scripts.dataset.progress import Progress

MAX_BYTES = 5 * 1024**3  # of an object sent in one request
MAX_KEY_BYTES = 1024  # of a whole key, UTF-8
SAVE_EVERY_SECONDS = 30.0  # the manifest, while files are sent
DELETED_AT_ONCE = 1000  # the service's limit
HASH = "sha256"  # name of the objects' metadata


@dataclass(frozen=True)
class Item:
    """A file on its way: `key` is relative to the prefix (train/001.Affenpinscher/a.jpg), `size` in bytes."""

    key: str
    path: Path
    size: int


@dataclass(frozen=True)
class Uploaded:
    """Numbers of files; `bytes` are those that were sent."""

    sent: int
    kept: int
    deleted: int
    bytes: int


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    size: int
    etag: str


def items(splits: Mapping[str, folders.ClassFiles]) -> list[Item]:
    """The files of a plan, under the names that folders.lay_out gives them. Raises DataError naming a file that S3
    cannot take."""
    made = []
    for key, path in folders.named(splits):
        size = path.stat().st_size
        _check_key(key, path)
        _check_size(path, size)
        made.append(Item(key, path, size))
    return made


def requests(items: Sequence[Item], prefix: S3Uri, settings: Settings) -> list[Request]:
    """What an upload to an empty prefix sends: for --dry-run. Reads the files, for their hashes."""
    hashes: dict[str, str] = {}
    each(lambda item: digest(item.path), items, lambda item, sha256: hashes.update({item.key: sha256}))
    for item in items:
        _check_whole_key(prefix / item.key, item.path)
    manifest = {**_place(prefix / MANIFEST), "Body": MANIFEST, "ContentType": "application/json"}
    return [
        *(put(item.path, hashes[item.key], prefix / item.key, settings) for item in items),
        Request("s3", "PutObject", {**manifest, **encryption(settings)}),
    ]


def file_request(path: Path, uri: S3Uri, settings: Settings) -> Request:
    """What upload_file sends. Raises DataError where the file is missing or too large."""
    if not path.is_file():
        raise DataError(f"{path} is not there, or no file")
    _check_size(path, path.stat().st_size)
    return put(path, digest(path), uri, settings)


def put(path: Path, sha256: str, uri: S3Uri, settings: Settings) -> Request:
    """One file, whole, its Body named by its path. S3 compares the checksum with what arrives, and keeps it."""
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    request = {**_place(uri), "Body": str(path), "ChecksumSHA256": checksum, "Metadata": {HASH: sha256}}
    return Request("s3", "PutObject", {**request, **encryption(settings)})


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(aws: Aws, items: Sequence[Item], prefix: S3Uri, settings: Settings, threads: int = THREADS) -> Uploaded:
    """Make the prefix equal to `items`: send what is not there, delete what an earlier upload sent and is gone.

    Raises CloudError, before anything is sent, for objects there that no upload of this program sent; Interrupted
    for Ctrl-C. However it ends, the next call goes on from there.
    """
    return _Upload(aws, items, prefix, settings, threads).run()


def upload_file(aws: Aws, path: Path, uri: S3Uri, settings: Settings) -> bool:
    """One file to this very key, unless it is there already; whether it was sent."""
    request = file_request(path, uri, settings)
    buckets.require(aws, uri.bucket, create=True)
    if _is_there(aws, uri, request.request["Metadata"][HASH], path.stat().st_size, settings):
        progress(f"{uri} is there already, unchanged")
        return False
    progress(f"sending {path} ({path.stat().st_size / 1e6:.0f} MB) to {uri}")
    _send(aws, request, path)
    return True


def require_data(aws: Aws, prefix: S3Uri) -> None:
    """Raises CloudError unless there are objects below train/, valid/ and test/ of `prefix`, and no upload that broke
    off."""
    buckets.require(aws, prefix.bucket)
    s3 = aws.client("s3")
    missing = [
        split
        for split in SPLITS
        if not any(
            found["Size"]
            for found in s3.list_objects_v2(
                Bucket=prefix.bucket, Prefix=f"{(prefix / split).key}/", MaxKeys=2, **owner(prefix.bucket)
            ).get("Contents", ())
        )
    ]
    if missing:
        raise CloudError(
            f"{prefix} has no pictures below {' and '.join(f'{name}/' for name in missing)}: upload them with"
            f" scripts/prepare_data.py DIR --s3 {prefix}"
        )
    manifest = None
    with suppress(CloudError):  # data may lie there that another program sent
        manifest = Stored(aws, prefix, Settings()).read()
    if manifest is not None and not manifest.complete:
        raise CloudError(
            f"the upload to {prefix} has not ended: {len(manifest.pending)} files may be missing; call"
            " scripts/prepare_data.py again as before"
        )


class _Upload:
    def __init__(self, aws: Aws, items: Sequence[Item], prefix: S3Uri, settings: Settings, threads: int) -> None:
        self.aws, self.prefix, self.settings, self.threads = aws, prefix, settings, threads
        self.items = {item.key: item for item in items}
        for item in items:
            _check_whole_key(prefix / item.key, item.path)
        self.hashes: dict[str, str] = {}
        self.manifest = Manifest(kms_key=settings.output_kms_key)
        self.stored = Stored(aws, prefix, settings)
        self.sent = self.sent_bytes = 0
        self.saved = time.monotonic()

    def run(self) -> Uploaded:
        buckets.require(self.aws, self.prefix.bucket, create=True)
        before = self.stored.read() or Manifest()
        there = self._list()
        self._refuse_foreign(before, there)
        todo = self._compare(before, there)
        gone = sorted(key for key in there if key not in self.items)
        kept = len(self.items) - len(todo)
        if todo or gone or self.manifest != before:
            # Also what is only known from before: it may yet arrive from an upload that is under way.
            known = before.pending.union(before.files, gone, (item.key for item in todo))
            self.manifest.pending = known.difference(self.manifest.files)
            try:
                self.stored.write(self.manifest)
                self._send_all(todo)
                self._delete(gone)
                self._finish()
            except KeyboardInterrupt:
                self._save_what_is_there()
                raise Interrupted(f"interrupted: {self._state()}; call the same again to send the rest") from None
            except (BotoCoreError, ClientError, Boto3Error) as error:
                self._save_what_is_there()
                raise CloudError(f"{explain(error)}; {self._state()}: call the same again to send the rest") from None
        return Uploaded(self.sent, kept, len(gone), self.sent_bytes)

    def _list(self) -> dict[str, Object]:
        """All objects below the prefix but the manifest, and the empty ones by which consoles show folders."""
        below = f"{self.prefix.key}/" if self.prefix.key else ""
        found: dict[str, Object] = {}
        pages = self.aws.client("s3").get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.prefix.bucket, Prefix=below, **owner(self.prefix.bucket)):
            for each_object in page.get("Contents", ()):
                key = each_object["Key"].removeprefix(below)
                if key != MANIFEST and not (not each_object["Size"] and (not key or key.endswith("/"))):
                    found[key] = Object(each_object["Size"], each_object["ETag"].strip('"'))
        return found

    def _refuse_foreign(self, before: Manifest, there: Mapping[str, Object]) -> None:
        foreign = [key for key in there if not before.knows(key)]
        if foreign:
            raise CloudError(
                f"{self.prefix / foreign[0]} was not put there by this program"
                f"{f', nor were {len(foreign) - 1} more' if len(foreign) > 1 else ''}: give another prefix, or empty"
                f" this one (`aws s3 rm --recursive {self.prefix}`)"
            )

    def _compare(self, before: Manifest, there: Mapping[str, Object]) -> list[Item]:
        """The files to send; what lies there as it should goes into the manifest."""
        with Progress(f"comparing with {self.prefix}", sum(item.size for item in self.items.values())) as bar:
            trusted = before.files if before.kms_key == self.settings.output_kms_key else {}

            def find(item: Item) -> tuple[str, Entry | None]:
                sha256, found = digest(item.path), there.get(item.key)
                if found is None or found.size != item.size:
                    return sha256, None
                entry = Entry(sha256, item.size, found.etag)
                if trusted.get(item.key) == entry:
                    return sha256, entry
                # Sent by a call that could not write it down any more, or overwritten since.
                same = _is_there(self.aws, self.prefix / item.key, sha256, item.size, self.settings)
                return sha256, entry if same else None

            todo = []

            def take(item: Item, found: tuple[str, Entry | None]) -> None:
                bar.add(item.size)
                sha256, entry = found
                if entry is None:
                    self.hashes[item.key] = sha256
                    todo.append(item)
                else:
                    self.manifest.files[item.key] = entry

            each(find, self.items.values(), take, self.threads)
        return sorted(todo, key=lambda item: item.key)

    def _send_all(self, todo: Sequence[Item]) -> None:
        total = sum(item.size for item in todo)
        if todo:
            progress(f"sending {len(todo)} of {len(self.items)} files ({total / 1e6:.1f} MB) to {self.prefix}")

        def send(item: Item) -> str:
            sha256 = self.hashes[item.key]
            return _send(self.aws, put(item.path, sha256, self.prefix / item.key, self.settings), item.path)

        def note(item: Item, etag: str) -> None:
            self.manifest.files[item.key] = Entry(self.hashes[item.key], item.size, etag)
            self.manifest.pending.discard(item.key)
            self.sent += 1
            self.sent_bytes += item.size
            bar.add(item.size)
            if time.monotonic() - self.saved >= SAVE_EVERY_SECONDS:
                self.stored.write(self.manifest)
                self.saved = time.monotonic()

        with Progress(str(self.prefix), total) as bar:
            each(send, todo, note, self.threads)

    def _delete(self, gone: Sequence[str]) -> None:
        for start in range(0, len(gone), DELETED_AT_ONCE):
            keys = [{"Key": (self.prefix / key).key} for key in gone[start : start + DELETED_AT_ONCE]]
            answer = sending.send(
                self.aws,
                Request(
                    "s3",
                    "DeleteObjects",
                    {
                        "Bucket": self.prefix.bucket,
                        "Delete": {"Objects": keys, "Quiet": True},
                        **owner(self.prefix.bucket),
                    },
                ),
            )
            for failed in answer.get("Errors", ()):
                raise CloudError(
                    f"s3://{self.prefix.bucket}/{failed.get('Key')} could not be deleted: {failed.get('Message')}"
                    f" ({failed.get('Code')})"
                )

    def _finish(self) -> None:
        """Hold what lies there against the manifest, and write it as complete."""
        there = {key: (found.size, found.etag) for key, found in self._list().items()}
        if there != {key: (entry.bytes, entry.etag) for key, entry in self.manifest.files.items()}:
            raise CloudError(
                f"objects below {self.prefix} were changed by somebody else during the upload: call this again when"
                " nobody does, to put them right"
            )
        self.manifest.pending.clear()
        self.stored.write(self.manifest)

    def _save_what_is_there(self) -> None:
        # What cannot be written now (no network, no permission) is found out by the next call, file by file.
        with suppress(CloudError, BotoCoreError, ClientError, KeyboardInterrupt):
            self.stored.write(self.manifest)

    def _state(self) -> str:
        return f"{len(self.manifest.files)} of {len(self.items)} files are in {self.prefix}"


def _place(uri: S3Uri) -> dict[str, Any]:
    return {"Bucket": uri.bucket, "Key": uri.key, **owner(uri.bucket)}


def _send(aws: Aws, request: Request, path: Path) -> str:
    """The ETag that the object got."""
    try:
        with path.open("rb") as body:
            answer = sending.send(aws, replace(request, request={**request.request, "Body": body}))
    except ClientError as error:
        if code_of(error) in {"BadDigest", "IncompleteBody"}:
            raise CloudError(f"{path} was changed while it was being sent: call this again") from None
        raise
    return str(answer["ETag"]).strip('"')


def _is_there(aws: Aws, uri: S3Uri, sha256: str, size: int, settings: Settings) -> bool:
    """Whether the object bears this hash, which travels with it, and is encrypted as asked for."""
    try:
        head = aws.client("s3").head_object(**_place(uri))
    except ClientError as error:
        if code_of(error) in {"404", "NoSuchKey"}:
            return False
        raise
    key = settings.output_kms_key
    # An alias cannot be told from another key's; then it is sent again.
    encrypted = key is None or str(head.get("SSEKMSKeyId", "")).endswith(key)
    return bool(encrypted and head["ContentLength"] == size and head.get("Metadata", {}).get(HASH) == sha256)


def _check_key(key: str, path: Path) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!r}: its name is not UTF-8, which S3 needs: rename it") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise DataError(f"{str(path)!r}: its name has a control character, which S3 cannot list: rename it")


def _check_whole_key(uri: S3Uri, path: Path) -> None:
    length = len(uri.key.encode())
    if length > MAX_KEY_BYTES:
        raise DataError(f"{path}: its key {uri.key!r} has {length} bytes, S3 takes {MAX_KEY_BYTES}: rename it")


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{path} has {size / 1e9:.1f} GB: S3 takes {MAX_BYTES / 1e9:.1f} GB in one request")
