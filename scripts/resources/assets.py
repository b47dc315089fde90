"""The project's objects in S3, below s3://BUCKET/PROJECT: sets of images, weights, and what training jobs left.

Objects have no tags, so each is known by something else: a set by its manifest, weights by the hash in their key, a
job's results by the job, which is tagged, models of a multi-model endpoint by their metadata, captured requests by the
place that deploy.py --capture gives them.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of
from scripts.aws.names import PROJECT_TAG, S3Uri
from scripts.aws.parallel import gather
from scripts.aws.requests import describe
from scripts.endpoints.modes import CAPTURED
from scripts.jobs.training_jobs import IN_PROGRESS, tags_of
from scripts.monitoring.captured import PLACE
from scripts.resources.inventory import NOUNS, THREADS, Kind
from scripts.s3 import bucket, objects
from scripts.s3 import manifest as manifests
from scripts.s3.manifest import NAME as MANIFEST
from scripts.s3.objects import HASH


@dataclass(frozen=True)
class S3Asset:
    """`keys` are whole ones, in the order in which they have to go: a manifest last."""

    kind: Kind
    uri: S3Uri
    keys: tuple[str, ...] = ()
    bytes: int = 0

    def __str__(self) -> str:
        return str(self.uri)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": str(self.uri), "objects": len(self.keys), "bytes": self.bytes}


def find(aws: Aws, home: S3Uri, project: str) -> tuple[list[S3Asset], list[tuple[S3Uri, int]]]:
    """All assets below `home`; and prefixes that hold objects of unknown origin, with their number."""
    sizes = below(aws, home)
    own = [*_images(aws, home, sizes), *_weights(aws, home, sizes), *_results(aws, home, sizes, project)]
    own += [*_models(aws, home, sizes, project), *_captures(home, sizes)]
    unmanaged = Counter(key.removeprefix(f"{home.key}/").split("/")[0] for key in sizes)
    return own, [(home / name, count) for name, count in sorted(unmanaged.items())]


def below(aws: Aws, home: S3Uri) -> dict[str, int]:
    """Sizes by whole key."""
    try:
        return {item["Key"]: item["Size"] for _, item in bucket.below(aws, home)}
    except ClientError as error:
        if code_of(error) == "NoSuchBucket":
            return {}
        raise


def _take(kind: Kind, uri: S3Uri, keys: Sequence[str], sizes: dict[str, int]) -> S3Asset:
    """Out of `sizes`, so that what stays there at the end is nobody's."""
    return S3Asset(kind, uri, tuple(keys), sum(sizes.pop(key) for key in keys))


def _images(aws: Aws, home: S3Uri, sizes: dict[str, int]) -> list[S3Asset]:
    found = []
    for key in [key for key in sizes if key.endswith(f"/{MANIFEST}")]:
        uri = S3Uri(home.bucket, key.removesuffix(f"/{MANIFEST}"))
        try:
            manifest = manifests.read(aws, uri)
        except CloudError:  # of another program
            continue
        if manifest is None:  # removed since it was listed
            continue
        known = [f"{uri.key}/{name}" for name in sorted(manifest.files)]
        found.append(_take(Kind.IMAGES, uri, [*(key for key in known if key in sizes), key], sizes))
    return found


def _weights(aws: Aws, home: S3Uri, sizes: dict[str, int]) -> list[S3Asset]:
    """weights/HASH/FILE, where the object bears that hash."""
    found = []
    for key in [key for key in sizes if key.startswith(f"{home.key}/{Kind.WEIGHTS}/")]:
        uri = S3Uri(home.bucket, key)
        sha256 = _metadata(aws, uri).get(HASH, "")
        if sha256 and sha256.startswith(key.split("/")[-2]):
            found.append(_take(Kind.WEIGHTS, uri, [key], sizes))
    return found


def _models(aws: Aws, home: S3Uri, sizes: dict[str, int], project: str) -> list[S3Asset]:
    """Of multi-model endpoints: PREFIX/NAME.tar.gz, where the object names the project."""
    found = []
    for key in [key for key in sizes if key.endswith(".tar.gz")]:
        uri = S3Uri(home.bucket, key)
        if _metadata(aws, uri).get(PROJECT_TAG) == project:
            found.append(_take(Kind.MODELS, uri, [key], sizes))
    return found


def _metadata(aws: Aws, uri: S3Uri) -> dict[str, str]:
    """Return those of an object; empty where it has been removed since it was listed."""
    found: dict[str, str] = (objects.head(aws, uri) or {}).get("Metadata", {})
    return found


def _captures(home: S3Uri, sizes: dict[str, int]) -> list[S3Asset]:
    """captured/ENDPOINT/VARIANT/YEAR/..., whether or not the endpoint still exists."""
    place = home / CAPTURED
    by_endpoint: dict[str, list[str]] = defaultdict(list)
    for key in sizes:
        if key.startswith(f"{place.key}/") and (found := PLACE.match(key)):
            by_endpoint[found["endpoint"]].append(key)
    return [_take(Kind.CAPTURES, place / name, keys, sizes) for name, keys in by_endpoint.items()]


def _results(aws: Aws, home: S3Uri, sizes: dict[str, int], project: str) -> list[S3Asset]:
    by_job: dict[str, list[str]] = defaultdict(list)
    for key in sizes:
        name, _, rest = key.removeprefix(f"{home.key}/").partition("/")
        if rest:
            by_job[name].append(key)

    def is_own(name: str) -> bool:
        """Tell whether it is a job of this project that has ended."""
        for noun in (NOUNS[Kind.JOB], NOUNS[Kind.TRANSFORM]):
            with suppress(ClientError):  # no name that a job could have
                if found := describe(aws, noun, name):
                    tags = tags_of(aws, found[f"{noun}Arn"])
                    return tags.get(PROJECT_TAG) == project and found[f"{noun}Status"] not in IN_PROGRESS
        return False

    names = sorted(by_job)
    own = zip(names, gather(is_own, names, THREADS), strict=True)
    return [_take(Kind.RESULTS, home / name, by_job[name], sizes) for name, mine in own if mine]
