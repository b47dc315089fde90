"""A prefix in S3 made equal to a set of files: what is there already is not sent again.

manifest, listing -> compare -> manifest -> send -> delete what is gone -> list again -> manifest (complete)

However it is broken off, the next call sends only what is missing: objects that the manifest has as sent are trusted
while size and ETag are still the same, of others that may be ours the hash is asked for that they bear.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain, is_denied
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.aws.settings import Settings
from scripts.console.command import Interrupted, progress
from scripts.dataset.progress import Progress
from scripts.resources import usage
from scripts.s3 import bucket, manifest
from scripts.s3.manifest import NAME, Entry, Manifest
from scripts.s3.objects import check_key, delete, digest, is_there, put, send


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


Listed = Mapping[str, tuple[int, str]]  # size and ETag of each object, by its key


class Sync:
    """One upload. `manifest` grows as it goes."""

    def __init__(self, aws: Aws, items: Sequence[Item], prefix: S3Uri, settings: Settings, threads: int) -> None:
        self.aws, self.prefix, self.settings, self.threads = aws, prefix, settings, threads
        self.items = {item.key: item for item in items}
        for item in items:
            check_key((prefix / item.key).key, item.path)
        self.hashes: dict[str, str] = {}
        self.manifest = Manifest(kms_key=settings.output_kms_key)
        self.sent = self.sent_bytes = 0

    def run(self) -> Uploaded:
        bucket.require(self.aws, self.prefix.bucket, create=True)
        before = manifest.read(self.aws, self.prefix) or Manifest()
        there = self._list()
        self._refuse_unmanaged(before, there)
        todo = self._compare(before, there)
        gone = sorted(key for key in there if key not in self.items)
        kept = len(self.items) - len(todo)
        if gone or any(item.key in there for item in todo):
            self._refuse_read()
        # Also what is only known from before: it may yet arrive from an upload that is under way.
        for key in {*before.files, *gone, *self.hashes} - self.manifest.files.keys():
            self.manifest.files[key] = Entry()
        if before != replace(self.manifest, complete=True):
            try:
                self._write_manifest()
                self._send_all(todo)
                delete(self.aws, self.prefix.bucket, [(self.prefix / key).key for key in gone])
                self._finish()
            except (KeyboardInterrupt, BotoCoreError, ClientError) as error:
                # What cannot be written now (no network, no permission) is found out by the next call, file by file.
                with suppress(CloudError, BotoCoreError, ClientError):
                    self._write_manifest()
                state = f"{kept + self.sent} of {len(self.items)} files are in {self.prefix}"
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(f"interrupted: {state}; call the same again to send the rest") from None
                raise CloudError(f"{explain(error)}; {state}: call the same again to send the rest") from None
        return Uploaded(self.sent, kept, len(gone), self.sent_bytes)

    def _write_manifest(self) -> None:
        manifest.write(self.aws, self.prefix, self.manifest, self.settings)

    def _list(self) -> dict[str, tuple[int, str]]:
        """All objects below the prefix but the manifest, and the empty ones by which consoles show folders."""
        return {
            key: (item["Size"], item["ETag"].strip('"'))
            for key, item in bucket.below(self.aws, self.prefix)
            if key != NAME and (item["Size"] or (key and not key.endswith("/")))
        }

    def _refuse_unmanaged(self, before: Manifest, there: Listed) -> None:
        unmanaged = [key for key in there if key not in before.files]
        if unmanaged:
            remedy = f"give another prefix, or empty this one (`aws s3 rm --recursive {self.prefix}`)"
            others = f"{len(unmanaged)} objects below {self.prefix} were not put there by this program"
            raise CloudError(f"{others}, such as {self.prefix / unmanaged[0]}: {remedy}")

    def _refuse_read(self) -> None:
        """A job would train on a mixture, or miss the images that it has listed."""
        try:
            reader = usage.reader(self.aws, self.prefix)
        except ClientError as error:
            if not is_denied(error):
                raise
            progress(f"whether a job reads {self.prefix} cannot be seen: {explain(error)}")
            return
        if reader:
            raise CloudError(f"{reader} reads {self.prefix}: wait for its end, or give another prefix")

    def _compare(self, before: Manifest, there: Listed) -> list[Item]:
        """The files to send; what is there as it should be goes into the manifest."""
        with Progress(f"comparing with {self.prefix}", sum(item.size for item in self.items.values())) as bar:
            trusted = before.files if before.kms_key == self.settings.output_kms_key else {}

            def find(item: Item) -> tuple[str, Entry | None]:
                sha256, found = digest(item.path), there.get(item.key)
                if found is None or found[0] != item.size:
                    return sha256, None
                entry = Entry(sha256, *found)
                if trusted.get(item.key) == entry:
                    return sha256, entry
                # Sent by a call that could not write it down any more, or overwritten since.
                same = is_there(self.aws, self.prefix / item.key, sha256, item.size, self.settings)
                return sha256, entry if same else None

            todo = []

            def take(item: Item, found: tuple[str, Entry | None]) -> None:
                bar.update(item.size)
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

        def send_one(item: Item) -> str:
            sha256 = self.hashes[item.key]
            return send(self.aws, put(item.path, sha256, self.prefix / item.key, self.settings), item.path)

        def note(item: Item, etag: str) -> None:
            self.manifest.files[item.key] = Entry(self.hashes[item.key], item.size, etag)
            self.sent += 1
            self.sent_bytes += item.size
            bar.update(item.size)

        with Progress(str(self.prefix), total) as bar:
            each(send_one, todo, note, self.threads)

    def _finish(self) -> None:
        """Compare what is there with the manifest, and write it as complete."""
        self.manifest.files = {key: self.manifest.files[key] for key in self.items}
        if self._list() != {key: (entry.bytes, entry.etag) for key, entry in self.manifest.files.items()}:
            self._write_manifest()
            others = f"objects below {self.prefix} were changed by another program during the upload"
            raise CloudError(f"{others}: call this again when it has ended, to put them right")
        self.manifest.complete = True
        self._write_manifest()
