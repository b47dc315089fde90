#!/usr/bin/env python3
"""Bring a set of pictures into train/, valid/ and test/ folders of class folders: on disk, in S3, or both.

scripts/prepare_data.py --out data/dogs                  download Udacity's dogImages.zip (1.1 GB), unpack
scripts/prepare_data.py dogImages.zip --out data/dogs    the same from a zip on disk
scripts/prepare_data.py my-pictures --out data/mine --split 0.8,0.1,0.1 --seed 0
scripts/prepare_data.py my-pictures --s3                 to s3://BUCKET/PROJECT/data/my-pictures, copying nothing here
scripts/prepare_data.py data/dogs --s3 s3://my-bucket/dogs --dry-run      the requests, and nothing else

Files that lie in S3 unchanged are not sent again, those that are gone here are deleted there. A call that broke off
is called again as it was, and goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "requests", "tqdm")

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.aws import names, settings
from scripts.aws import requests as sending
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import Interrupted, progress
from scripts.dataset import check, folders, prepared
from scripts.dataset.folders import ClassFiles, DataError
from scripts.dataset.plan import divide, plan, readable, refuse, tell
from scripts.dataset.source import DOG_IMAGES, Opened, Source
from scripts.s3 import bucket, storage


@dataclass(frozen=True)
class TrainingJobSpec:
    source: Source
    out: Path | None
    prefix: S3Uri | None
    settings: Settings
    fractions: tuple[float, float, float]
    seed: int
    any_counts: bool
    dry_run: bool
    json: bool

    def origin(self) -> dict[str, object]:
        return {"source": self.source.record(), "split": list(self.fractions), "seed": self.seed}

    def downloads(self) -> Path:
        return self.out.parent if self.out else self.source.cache()


def main(arguments: Sequence[str]) -> int:
    wanted = parse(arguments)
    wanted.source.check()
    try:
        if wanted.dry_run:
            print(sending.show(planned(wanted)))
            return 0
        aws = None
        if wanted.prefix is not None:
            # Found wrong now rather than after a download of 1.1 GB.
            aws = wanted.settings.aws()
            bucket.require(aws, wanted.prefix.bucket, create=True)
        result = on_disk(wanted) if wanted.out else {}
        if aws is not None:
            result |= in_s3(wanted, aws)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; call it again to go on") from None
    report(wanted, result)
    return 0


def parse(arguments: Sequence[str]) -> TrainingJobSpec:
    parser = command.parser("prepare_data.py", __doc__ or "")
    parser.add_argument(
        "source", nargs="?", default=DOG_IMAGES, help="a zip, a folder or a URL (default: dogImages.zip)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--s3", nargs="?", const="", metavar="URI", help="S3 prefix (default s3://BUCKET/PROJECT/data/NAME)"
    )
    parser.add_argument(
        "--split",
        default="0.8,0.1,0.1",
        metavar="A,B,C",
        help="shares of train, valid and test where not split yet",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    parser.add_argument("--any-counts", action="store_true", help="do not check the number of pictures of dogImages")
    parser.add_argument("--dry-run", action="store_true", help="print the requests to S3, send nothing, make nothing")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    settings.add_flags(parser, "role", "bucket", "project", "output_kms_key")
    flags = parser.parse_args(arguments)
    if flags.out is None and flags.s3 is None:
        raise CloudError("where to? give --out DIR, --s3, or both", 2)
    try:
        first, second, third = (float(part) for part in flags.split.split(","))
    except ValueError:
        raise CloudError(f"--split has value {flags.split!r}: expected three numbers such as 0.8,0.1,0.1", 2) from None
    if not (min(first, second, third) > 0 and abs(first + second + third - 1) <= 1e-6):  # so that nan does not pass
        raise CloudError(f"--split has value {flags.split!r}: expected three shares above 0 that add up to 1", 2)
    source, known = Source(flags.source), settings.load(flags)
    return TrainingJobSpec(
        source,
        flags.out.absolute() if flags.out else None,
        None if flags.s3 is None else _prefix(flags.s3, source, known, offline=flags.dry_run),
        known,
        (first, second, third),
        flags.seed,
        flags.any_counts,
        flags.dry_run,
        flags.json,
    )


def _prefix(text: str, source: Source, known: Settings, *, offline: bool) -> S3Uri:
    if not text:
        if known.bucket is None and known.role is None and not offline:
            aws = known.aws()
            known = replace(known, bucket=names.default_bucket(aws.region, aws.identity.account))
        return known.home() / "data" / source.name
    if not text.startswith("s3://"):
        raise CloudError(f"--s3 has value {text!r}: expected s3://BUCKET/PREFIX; a folder stands before --s3", 2)
    return S3Uri.parse(text, "--s3")


def on_disk(wanted: TrainingJobSpec) -> dict[str, Any]:
    """Make wanted.out, or leave nothing of it. A folder made by the same call before is left as it is."""
    out = wanted.out
    assert out is not None
    if record := prepared.find(out, wanted.origin()):
        return _there_already(wanted, out, record)
    with prepared.workplace(out) as work:
        if record := prepared.find(out, wanted.origin()):  # another call has just ended
            return _there_already(wanted, out, record)
        opened = wanted.source.open(work, wanted.downloads())
        if out.is_relative_to(opened.root):
            raise DataError(f"--out {out} lies inside the pictures' own folder {opened.root}: give another")
        splits = split(wanted, opened)
        bad = check.unreadable(check.all_files(splits))
        refuse(splits, bad)
        tell(bad, progress, "they are left out")
        splits = readable(splits, bad)
        record = wanted.origin() | summary(splits) | {"unreadable": len(bad)}
        prepared.make(out, splits, record, work)
    opened.forget()
    return {**record, "out": str(out)}


def _there_already(wanted: TrainingJobSpec, out: Path, record: dict[str, Any]) -> dict[str, Any]:
    progress(
        f"{out} is there already, made from {wanted.source.text}: nothing to do (what has changed there since is"
        " not in it: remove it, and it is made anew)"
    )
    return {**record, "out": str(out)}


def in_s3(wanted: TrainingJobSpec, aws: Aws) -> dict[str, Any]:
    assert wanted.prefix is not None
    with tempfile.TemporaryDirectory(prefix="byoc-") as work:
        splits, opened = pictures(wanted, Path(work))
        uploaded = storage.upload(aws, storage.items(splits), wanted.prefix, wanted.settings)
    opened.forget()
    return wanted.origin() | summary(splits) | {"s3": str(wanted.prefix)} | vars(uploaded)


def planned(wanted: TrainingJobSpec) -> list[sending.Request]:
    """What would be sent to a prefix where there is nothing yet."""
    if wanted.prefix is None:
        return []
    if bucket.owner(wanted.prefix.bucket):
        progress(f"s3://{wanted.prefix.bucket} would be made if it is missing, closed to the public")
    made = wanted.out is not None and prepared.find(wanted.out, wanted.origin()) is not None
    if wanted.source.is_url and not made and not wanted.source.archive(wanted.downloads()).exists():
        progress(
            f"{wanted.source.text} is not on this machine yet, so the request for each of its pictures is not known:"
            " only the manifest's is shown"
        )
        return storage.requests([], wanted.prefix, wanted.settings)
    progress(f"what lies at {wanted.prefix} unchanged would not be sent again; what is gone here, deleted there")
    with tempfile.TemporaryDirectory(prefix="byoc-") as work:
        splits, opened = pictures(wanted, Path(work))
        requests = storage.requests(storage.items(splits), wanted.prefix, wanted.settings)
    for request in requests[:-1]:
        request.request["Body"] = str(opened.original(Path(request.request["Body"])))
    return requests


def pictures(wanted: TrainingJobSpec, work: Path) -> tuple[dict[str, ClassFiles], Opened]:
    """What goes to S3: from wanted.out where that is made, else from the source itself."""
    if wanted.out is not None and prepared.find(wanted.out, wanted.origin()):
        return plan(wanted.out, say=progress), Opened(wanted.out)
    opened = wanted.source.open(work, wanted.downloads())
    splits = split(wanted, opened)
    bad = check.unreadable(check.all_files(splits))
    refuse(splits, bad)
    tell(bad, progress, "they are not sent")
    return readable(splits, bad), opened


def split(wanted: TrainingJobSpec, opened: Opened) -> dict[str, ClassFiles]:
    if wanted.source.text == DOG_IMAGES and opened.archive and not wanted.any_counts:
        check.dog_size(opened.archive)
    found = folders.find(opened.root)
    if (opened.root.name == "dogImages" or wanted.source.text == DOG_IMAGES) and not wanted.any_counts:
        check.dog_counts(found, opened.archive or opened.root)
    return divide(found, wanted.fractions, wanted.seed, progress)


def summary(splits: dict[str, ClassFiles]) -> dict[str, Any]:
    return {"images": folders.count(splits), "classes": len(splits["train"])}


def report(wanted: TrainingJobSpec, result: dict[str, Any]) -> None:
    if wanted.json:
        print(json.dumps(result))
        return
    pictures = ", ".join(f"{n} {name}" for name, n in result["images"].items())
    if wanted.out:
        print(f"{wanted.out}: {result['classes']} classes, {pictures}")
    if wanted.prefix:
        print(
            f"{wanted.prefix}: {result['classes']} classes, {pictures}; {result['sent']} files sent"
            f" ({result['bytes'] / 1e6:.1f} MB), {result['kept']} there already, {result['deleted']} deleted"
        )


if __name__ == "__main__":
    sys.exit(command.run("prepare_data.py", main))
