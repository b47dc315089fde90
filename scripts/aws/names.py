"""Names and addresses: roles, image URIs, S3 URIs, and the names and tags of what the scripts create."""

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.aws.errors import CloudError
from scripts.console.command import progress

PROJECT_TAG = "byoc-project"  # by this tag the scripts know what they made
MAX_NAME = 63  # of a training job, model, endpoint configuration, endpoint
MAX_SEARCH = 32  # of a tuning job

_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/([\w+=,.@/-]+)\Z", re.ASCII)
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<domain>amazonaws\.com(?:\.cn)?)/"
    r"(?P<repository>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z",
    re.ASCII,
)
_TARGET = re.compile(r"-(train|serve)(?:-torch)?\Z")  # as scripts/push.sh names repositories
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
BUCKET_WORDS = "3 to 63 lower-case letters, digits, dots and hyphens"
_NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*\Z")
_REFERENCE = re.compile(r"([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})(?::([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Role:
    arn: str
    partition: str
    account: str

    @classmethod
    def parse(cls, arn: str, source: str = "--role") -> "Role":
        match = _ROLE.match(arn)
        if not match:
            raise CloudError(f"{source} has value {arn!r}: expected arn:aws:iam::ACCOUNT:role/NAME", 2)
        return cls(arn, match[1], match[2])


@dataclass(frozen=True)
class Image:
    """An image in ECR; one of `tag` and `digest` may be missing, not both."""

    uri: str
    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def of_target(cls, uri: str, region: str, wanted: str, flag: str = "--image") -> "Image":
        """The image that trains or serves. Raises CloudError as `parse` does, and for the project's other one."""
        found = cls.parse(uri, region, flag)
        target = _TARGET.search(found.repository)
        if target and target[1] != wanted:
            raise CloudError(f"{flag} {uri} is the image that {target[1]}s: give the one that {wanted}s", 2)
        return found

    @classmethod
    def parse(cls, uri: str, region: str | None = None, flag: str = "--image") -> "Image":
        """Raises CloudError where it is no image in ECR, or one in another region than `region`."""
        match = _IMAGE.match(uri)
        if not match:
            form = "ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG, as scripts/push.sh prints it"
            raise CloudError(f"{flag} has value {uri!r}: expected {form} (--local takes any here)", 2)
        if not match["tag"] and not match["digest"]:
            raise CloudError(f"{flag} {uri} has no tag: name one, as scripts/push.sh prints it", 2)
        if region and match["region"] != region:
            where = f"is in {match['region']}, and the region is {region}"
            raise CloudError(f"{flag} {uri} {where}: push it there, or give another --region", 2)
        return cls(uri, match["account"], match["region"], match["repository"], match["tag"], match["digest"])


@dataclass(frozen=True)
class S3Uri:
    """`key` has no slash at either end; it may be empty."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str, flag: str) -> "S3Uri":
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not BUCKET.match(bucket):
            raise CloudError(f"{flag} has value {text!r}: expected s3://BUCKET/PREFIX, in BUCKET {BUCKET_WORDS}", 2)
        return cls(bucket, key.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, name: str) -> "S3Uri":
        return S3Uri(self.bucket, f"{self.key}/{name}" if self.key else name)


@dataclass(frozen=True)
class Reference:
    """A version in the model registry as a user names it, GROUP[:VERSION]."""

    group: str
    version: int | None

    @classmethod
    def parse(cls, text: str, flag: str) -> "Reference":
        """Raises CloudError."""
        match = _REFERENCE.fullmatch(text)
        if not match:
            raise CloudError(f"{flag} has value {text!r}: expected GROUP or GROUP:VERSION, such as byoc-dogs:3", 2)
        return cls(match[1], int(match[2]) if match[2] else None)

    def arn(self, role: Role, region: str) -> str:
        """Return the ARN without asking AWS; where no version is given, that of version 1, which is said."""
        if self.version is None:
            progress(f"--dry-run: the version of {self.group} is looked up in AWS; 1 stands for it here")
        return f"arn:{role.partition}:sagemaker:{region}:{role.account}:model-package/{self.group}/{self.version or 1}"


def default_bucket(region: str, account: str) -> str:
    """The bucket that SageMaker's own tools make and use."""
    return f"sagemaker-{region}-{account}"


def unique(*parts: str, most: int = MAX_NAME) -> str:
    """PARTS-20261122-093015-a1b2: a name that sorts by time and that no second call makes."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    suffix = f"{stamp}-{secrets.token_hex(2)}"
    return f"{'-'.join(parts)[: most - len(suffix) - 1].rstrip('-')}-{suffix}"


def checked(name: str, flag: str = "--name", most: int = MAX_NAME) -> str:
    """A name that SageMaker takes. Raises CloudError."""
    if len(name) > most or not _NAME.match(name):
        raise CloudError(f"{flag} has value {name!r}: expected letters, digits and single -, at most {most}", 2)
    return name


def tag_map(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of a description, by their keys."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """As SageMaker and ECR take tags."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
