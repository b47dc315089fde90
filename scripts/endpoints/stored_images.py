"""Images in S3, known by the ends of their names."""

from pathlib import PurePosixPath

from container_train.data.listing import SUFFIXES, is_hidden, of_others
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.console.command import progress
from scripts.s3 import bucket


def is_image(key: str) -> bool:
    return PurePosixPath(key).suffix.lower() in SUFFIXES


def below(aws: Aws, prefix: S3Uri) -> dict[str, int]:
    """Return the sizes in bytes of the images below a prefix, by their keys relative to it; tell of what is left out.

    Raises CloudError where there are none, or no such bucket.
    """
    bucket.require(aws, prefix.bucket)
    found: dict[str, int] = {}
    others: list[str] = []
    for key, item in bucket.below(aws, prefix):
        if is_image(key) and item["Size"] and not is_hidden(PurePosixPath(key).name):
            found[key] = item["Size"]
        elif item["Size"]:
            others.append(key)
    if not found:
        raise CloudError(f"{prefix}: no images below this prefix ({', '.join(sorted(SUFFIXES))})", 2)
    if others:
        progress(of_others(others))
    return found
