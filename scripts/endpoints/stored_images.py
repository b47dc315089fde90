"""Images in S3, known by the ends of their names."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from container_train.data.listing import SUFFIXES, is_hidden
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.s3 import bucket


@dataclass(frozen=True)
class Stored:
    """Images below `prefix`: their sizes in bytes by their keys relative to it; `others` are objects left out."""

    prefix: S3Uri
    images: dict[str, int]
    others: list[str] = field(default_factory=list)


def is_image(key: str) -> bool:
    return PurePosixPath(key).suffix.lower() in SUFFIXES


def below(aws: Aws, prefix: S3Uri) -> Stored:
    """Return the images below a prefix. Raises CloudError where there are none, or no such bucket."""
    bucket.require(aws, prefix.bucket)
    found = Stored(prefix, {})
    for key, item in bucket.below(aws, prefix):
        if is_image(key) and item["Size"] and not is_hidden(PurePosixPath(key).name):
            found.images[key] = item["Size"]
        elif item["Size"]:
            found.others.append(key)
    if not found.images:
        raise CloudError(f"{prefix}: no images below this prefix ({', '.join(sorted(SUFFIXES))})", 2)
    return found
