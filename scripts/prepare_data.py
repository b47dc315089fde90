#!/usr/bin/env python3
"""Bring a set of images into train/, valid/ and test/ folders of class folders: on disk, in S3, or both.

scripts/prepare_data.py --out data/dogs                  download Udacity's dogImages.zip (1.1 GB), unpack
scripts/prepare_data.py dogImages.zip --out data/dogs    the same from a zip on disk
scripts/prepare_data.py my-images --out data/mine --split 0.8,0.1,0.1 --seed 0
scripts/prepare_data.py my-images --s3                   to s3://BUCKET/PROJECT/data/my-images, copying nothing here
scripts/prepare_data.py data/dogs --s3 s3://my-bucket/dogs --dry-run      the requests, and nothing else

Files that are unchanged in S3 are not sent again, those that no longer exist here are deleted there. To resume after
an interruption, repeat the same call.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "tqdm")

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from container_serve import scratch
from container_train.data.splits import FRACTIONS, SEED
from container_train.hyperparameters import read_number
from scripts.aws import names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request, show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import Interrupted, progress
from scripts.dataset.preparation import Preparation, summary
from scripts.dataset.source import DOG_IMAGES, Source
from scripts.s3 import bucket, storage


def main(arguments: Sequence[str]) -> int:
    flags = parser().parse_args(arguments)
    wanted = preparation(flags)
    wanted.source.check()
    try:
        if flags.dry_run:
            print(one_per_line(planned(wanted)))
            return 0
        aws = None
        if wanted.prefix is not None:
            # Found wrong now rather than after a download of 1.1 GB.
            aws = wanted.settings.aws()
            bucket.require(aws, wanted.prefix.bucket, create=True)
        result = wanted.lay_out(wanted.out) if wanted.out else {}
        if aws is not None:
            result |= in_s3(wanted, aws)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; repeat the call to resume") from None
    if flags.json:
        print(json.dumps(result))
    else:
        report(wanted, result)
    return 0


def parser() -> argparse.ArgumentParser:
    made = command.parser("prepare_data.py", __doc__ or "")
    add = made.add_argument
    add("source", nargs="?", default=DOG_IMAGES, help="a zip, a folder or a URL (default: dogImages.zip)")
    where = made.add_argument_group("where to (one of them is required, both are possible)").add_argument
    where("--out", type=Path, metavar="DIR", help="the new folder")
    where("--s3", nargs="?", const="", metavar="URI", help="S3 prefix (default s3://BUCKET/PROJECT/data/NAME)")
    how = made.add_argument_group("how").add_argument
    shares = ",".join(map(str, FRACTIONS))
    how("--split", default=shares, metavar="A,B,C", help="shares of train, valid and test where not split yet")
    how("--seed", type=command.integer(0), default=SEED, metavar="N", help=f"of the split (default {SEED})")
    how("--dry-run", action="store_true", help="print the requests to S3, one per line; send and make nothing")
    how("--json", action="store_true", help="print the result as one JSON object")
    settings.add_flags(made, "role", "bucket", "project", "output_kms_key")
    return made


def preparation(flags: argparse.Namespace) -> Preparation:
    if flags.out is None and flags.s3 is None:
        raise CloudError("where to? give --out DIR, --s3, or both", 2)
    try:
        fractions = tuple(read_number(part.strip(), float) for part in flags.split.split(","))
    except ValueError:
        fractions = ()
    # So that nan does not pass.
    if not (len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise CloudError(f"--split has value {flags.split!r}: expected three shares above 0 that add up to 1", 2)
    source, known = Source(flags.source), settings.load(flags)
    out = flags.out.absolute() if flags.out else None
    prefix = None if flags.s3 is None else s3_prefix(flags.s3, source, known, offline=flags.dry_run)
    return Preparation(source, out, prefix, known, fractions, flags.seed)


def s3_prefix(text: str, source: Source, known: Settings, *, offline: bool) -> S3Uri:
    if not text:
        if known.bucket is None and known.role is None and not offline:
            aws = known.aws()
            known = replace(known, bucket=names.default_bucket(aws.region, aws.identity.account))
        return known.home() / "data" / source.name
    if not text.startswith("s3://"):
        raise CloudError(f"--s3 has value {text!r}: expected s3://BUCKET/PREFIX; a folder stands before --s3", 2)
    return S3Uri.parse(text, "--s3")


def in_s3(wanted: Preparation, aws: Aws) -> dict[str, Any]:
    assert wanted.prefix is not None
    with scratch.folder() as work:
        found = wanted.to_send(work)
        uploaded = storage.upload(aws, storage.items(found), wanted.prefix, wanted.settings)
    if wanted.out is None:  # otherwise --out's own step has done so
        wanted.source.forget(wanted.downloads)
    return {**wanted.origin, **summary(found), "s3": str(wanted.prefix), **vars(uploaded)}


def planned(wanted: Preparation) -> list[Request]:
    """The requests to a prefix where there is nothing yet."""
    if wanted.prefix is None:
        return []
    if bucket.owner(wanted.prefix.bucket):
        progress(f"s3://{wanted.prefix.bucket} would be created if it is missing, closed to the public")
    if wanted.source.is_url and not wanted.record and not wanted.source.archive(wanted.downloads).exists():
        progress(f"{wanted.source.text} is not on this machine yet, so only the manifest's request is known")
        return storage.requests([], wanted.prefix, wanted.settings)
    progress(f"objects unchanged at {wanted.prefix} would not be sent again; those no longer here would be deleted")
    with scratch.folder() as work:
        return storage.requests(storage.items(wanted.to_send(work)), wanted.prefix, wanted.settings)


def one_per_line(requests: Sequence[Request]) -> str:
    """A JSON list, each request in a line of its own: there is one for each image."""
    shown = json.loads(show(requests))
    return "[" + ",\n".join(json.dumps(request, ensure_ascii=False) for request in shown) + "]"


def report(wanted: Preparation, result: dict[str, Any]) -> None:
    images = ", ".join(f"{n} {name}" for name, n in result["images"].items())
    if wanted.out:
        print(f"{wanted.out}: {result['classes']} classes, {images}")
    if wanted.prefix:
        print(
            f"{wanted.prefix}: {result['classes']} classes, {images}; {result['sent']} files sent"
            f" ({result['bytes'] / 1e6:.1f} MB), {result['kept']} there already, {result['deleted']} deleted"
        )


if __name__ == "__main__":
    sys.exit(command.run("prepare_data.py", main))
