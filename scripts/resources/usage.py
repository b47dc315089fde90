"""The users of models, configurations, images and data in the whole account: nothing that is used is removed.

An endpoint whose configuration or model is gone is not patched and not scaled any more; a job whose data is gone fails.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore import xform_name
from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.jobs.training_jobs import is_missing
from scripts.resources.belongings import PICTURES, Belonging
from scripts.resources.inventory import CONFIGURATION, ENDPOINT, JOB, MODEL, REPOSITORY, SEARCH, THREADS, Thing

T = TypeVar("T", bound=Thing | Belonging)


@dataclass(frozen=True)
class _Source:
    """A kind of user: how all of the account are listed, those in `statuses` only, and each is described.

    `key`: what names one, in its summary and in the request that describes it.
    """

    kind: str
    noun: str
    key: str
    statuses: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()  # parameters of the list


_RUNNING = ("InProgress", "Stopping")
_COMPONENT, _TRANSFORM, _PACKAGE = "inference component", "transform job", "model package"
_SOURCES = {
    source.kind: source
    for source in (
        _Source(ENDPOINT, "Endpoint", "EndpointName"),
        _Source(CONFIGURATION, "EndpointConfig", "EndpointConfigName"),
        _Source(_COMPONENT, "InferenceComponent", "InferenceComponentName"),
        _Source(MODEL, "Model", "ModelName"),
        _Source(JOB, "TrainingJob", "TrainingJobName", _RUNNING),
        _Source(SEARCH, "HyperParameterTuningJob", "HyperParameterTuningJobName", _RUNNING),
        _Source(_TRANSFORM, "TransformJob", "TransformJobName", _RUNNING),
        _Source(_PACKAGE, "ModelPackage", "ModelPackageArn", more=(("ModelPackageType", "Both"),)),
    )
}
_STORES = (MODEL, JOB, SEARCH, _TRANSFORM, _PACKAGE)
# What may use a thing of this kind; nothing uses the others.
_USERS = {
    CONFIGURATION: (ENDPOINT,),
    MODEL: (CONFIGURATION, _COMPONENT, _TRANSFORM),
    REPOSITORY: _STORES,
}
# A model's address may also be https://BUCKET.s3.REGION.amazonaws.com/KEY, or have the bucket in the path.
_HTTPS = re.compile(r"https://(?:(?P<host>[a-z0-9.-]+)\.)?s3[a-z0-9.-]*\.amazonaws\.com(?:\.cn)?/(?P<path>.+)")
_WRITTEN = "S3OutputPath"  # there is nothing to read where something is only written


@dataclass(frozen=True)
class User:
    """`values`: every text in its description, with the key that it stands under."""

    kind: str
    name: str
    values: frozenset[tuple[str, str]]

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"

    def uses(self, thing: "Thing | Belonging") -> bool:
        if isinstance(thing, Belonging):
            return any(key != _WRITTEN and _overlaps(text, str(thing.uri)) for key, text in self.values)
        if thing.kind == REPOSITORY:
            return any(text.startswith((f"{thing.detail}:", f"{thing.detail}@")) for _, text in self.values)
        return thing.kind in _USERS and (_SOURCES[thing.kind].key, thing.name) in self.values


def kept(aws: Aws, doomed: Sequence[T]) -> dict[T, User]:
    """Those of `doomed` that something uses which stays, and what. Raises botocore's errors where it cannot be seen."""
    needed = {kind for thing in doomed for kind in _users_of(thing)}
    users = [user for kind in _SOURCES if kind in needed for user in _find(aws, _SOURCES[kind])]
    going = {(thing.kind, thing.name) for thing in doomed if isinstance(thing, Thing)}
    found: dict[T, User] = {}
    while True:
        staying = [user for user in users if (user.kind, user.name) not in going]
        more = {thing: user for thing in doomed if thing not in found and (user := _first_user(thing, staying))}
        if not more:
            return found
        # A configuration that stays needs its model.
        found |= more
        going -= {(thing.kind, thing.name) for thing in more if isinstance(thing, Thing)}


def _first_user(thing: Thing | Belonging, users: Sequence[User]) -> User | None:
    return next((user for user in users if user.kind in _users_of(thing) and user.uses(thing)), None)


def reader(aws: Aws, uri: S3Uri) -> User | None:
    """A job in progress that reads below this prefix. Raises botocore's errors where it cannot be seen."""
    data = Belonging(PICTURES, uri, (), 0)
    return _first_user(data, [user for kind in (JOB, SEARCH, _TRANSFORM) for user in _find(aws, _SOURCES[kind])])


def can_be_used(thing: Thing | Belonging) -> bool:
    """Tell whether anything else could need it."""
    return bool(_users_of(thing))


def _users_of(thing: Thing | Belonging) -> Collection[str]:
    return _STORES if isinstance(thing, Belonging) else _USERS.get(thing.kind, ())


def _find(aws: Aws, source: _Source) -> list[User]:
    client = aws.client("sagemaker")
    paginator = client.get_paginator(f"list_{xform_name(source.noun)}s")
    describe = getattr(client, f"describe_{xform_name(source.noun)}")
    asked = source.key.replace("Arn", "Name")  # a package of a group has no name, and its ARN in the place of one

    def look(summary: Mapping[str, Any]) -> User | None:
        try:
            found = describe(**{asked: summary[source.key]})
        except ClientError as error:
            if is_missing(error):  # removed since it was listed
                return None
            raise
        return User(source.kind, summary[source.key], frozenset(_texts(found)))

    def listed() -> Iterator[Mapping[str, Any]]:
        for status in source.statuses or (None,):
            request = dict(source.more) | ({"StatusEquals": status} if status else {})
            for page in paginator.paginate(**request):
                yield from next((value for value in page.values() if isinstance(value, list)), ())

    users: list[User] = []
    each(look, list(listed()), lambda _, user: users.append(user) if user else None, THREADS)
    return sorted(users, key=lambda user: user.name)


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
    """Tell whether an address, of an object or of all that begins with it, reads what lies below `prefix`."""
    if match := _HTTPS.match(address):
        address = f"s3://{match['host'] + '/' if match['host'] else ''}{match['path']}"
    return (address.startswith("s3://") and prefix.startswith(address)) or address.startswith(f"{prefix}/")
