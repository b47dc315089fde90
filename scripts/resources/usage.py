"""The users of models, configurations, images and data in the whole account: nothing that is used is removed.

An endpoint whose configuration or model is gone is not patched and not scaled any more; a job whose data is gone fails.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from scripts.aws.account import Aws
from scripts.aws.names import S3Uri
from scripts.aws.parallel import gather
from scripts.aws.requests import describe
from scripts.resources.assets import S3Asset
from scripts.resources.inventory import NOUNS, RUNNING, THREADS, Kind, Resource, listed

T = TypeVar("T", bound=Resource | S3Asset)

_READERS = (Kind.JOB, Kind.SEARCH, Kind.TRANSFORM)  # only those in progress use anything
_STORES = (Kind.MODEL, *_READERS, Kind.PACKAGE)
# What may use a resource or asset of this kind; nothing uses the others.
USERS: dict[Kind, tuple[Kind, ...]] = {
    Kind.CONFIGURATION: (Kind.ENDPOINT,),
    Kind.MODEL: (Kind.CONFIGURATION, Kind.COMPONENT, Kind.TRANSFORM),
    Kind.PACKAGE: (Kind.MODEL,),
    Kind.GROUP: (Kind.PACKAGE,),
    Kind.REPOSITORY: _STORES,
    Kind.IMAGES: _READERS,
    Kind.WEIGHTS: _READERS,
    Kind.RESULTS: _STORES,
    Kind.MODELS: _STORES,
}
# A model's address may also be https://BUCKET.s3.REGION.amazonaws.com/KEY, or have the bucket in the path.
_HTTPS = re.compile(r"https://(?:(?P<host>[a-z0-9.-]+)\.)?s3[a-z0-9.-]*\.amazonaws\.com(?:\.cn)?/(?P<path>.+)")
_WRITTEN = "S3OutputPath"  # there is nothing to read where something is only written


@dataclass(frozen=True)
class User:
    """`values`: every text in its description, with the key that it stands under."""

    kind: Kind
    name: str
    values: frozenset[tuple[str, str]]

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"

    def uses(self, thing: "Resource | S3Asset") -> bool:
        if isinstance(thing, S3Asset):
            return any(key != _WRITTEN and _overlaps(text, str(thing.uri)) for key, text in self.values)
        if thing.kind == Kind.REPOSITORY:
            return any(text.startswith((f"{thing.detail}:", f"{thing.detail}@")) for _, text in self.values)
        return (f"{NOUNS.get(thing.kind)}Name", thing.name) in self.values


def kept(aws: Aws, to_delete: Sequence[T]) -> dict[T, User]:
    """Those that something uses which stays, and what. Raises botocore's errors where it cannot be seen."""
    needed = {kind for thing in to_delete for kind in USERS.get(thing.kind, ())}
    users = [user for kind in NOUNS if kind in needed for user in _find(aws, kind)]
    going = {(thing.kind, thing.name) for thing in to_delete if isinstance(thing, Resource)}
    found: dict[T, User] = {}
    while True:
        staying = [user for user in users if (user.kind, user.name) not in going]
        more = {thing: user for thing in to_delete if thing not in found and (user := _first_user(thing, staying))}
        if not more:
            return found
        # A configuration that stays needs its model.
        found |= more
        going -= {(thing.kind, thing.name) for thing in more if isinstance(thing, Resource)}


def _first_user(thing: Resource | S3Asset, users: Sequence[User]) -> User | None:
    return next((user for user in users if user.kind in USERS.get(thing.kind, ()) and user.uses(thing)), None)


def reader(aws: Aws, uri: S3Uri) -> User | None:
    """A job in progress that reads below this prefix. Raises botocore's errors where it cannot be seen."""
    return _first_user(S3Asset(Kind.IMAGES, uri), [user for kind in _READERS for user in _find(aws, kind)])


def _find(aws: Aws, kind: Kind) -> list[User]:
    """All of the account; of jobs, those in progress."""
    noun = NOUNS[kind]
    # A package of a group has no name, and its ARN in the place of one.
    key = "ModelPackageArn" if kind == Kind.PACKAGE else f"{noun}Name"
    queries: list[dict[str, str]] = [{"ModelPackageType": "Both"} if kind == Kind.PACKAGE else {}]
    if kind in _READERS:
        queries = [{"StatusEquals": status} for status in RUNNING]

    def look(summary: Mapping[str, Any]) -> User | None:
        found = describe(aws, noun, summary[key])  # None: removed since it was listed
        return User(kind, summary[key], frozenset(_texts(found))) if found else None

    summaries = [summary for query in queries for summary in listed(aws, noun, **query)]
    return sorted(filter(None, gather(look, summaries, THREADS)), key=lambda user: user.name)


def _texts(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(document, str):
        yield key, document
    elif isinstance(document, Mapping):
        for name, value in document.items():
            yield from _texts(value, name)
    elif isinstance(document, Iterable):
        for value in document:
            yield from _texts(value, key)


def _overlaps(address: str, prefix: str) -> bool:
    """Tell whether an address, of an object or of all that begins with it, reads what is below `prefix`."""
    if match := _HTTPS.match(address):
        address = f"s3://{match['host'] + '/' if match['host'] else ''}{match['path']}"
    return (address.startswith("s3://") and prefix.startswith(address)) or address.startswith(f"{prefix}/")
