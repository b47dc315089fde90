"""model.tar.gz before it is deployed: where it lies, and whether an image can serve it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError
from tqdm import tqdm

from container_serve import artifact, user_code
from container_serve.artifact import FORMAT_VERSION, MODEL_JSON
from container_serve.errors import ArtifactError
from container_serve.settings import Settings as ServerSettings
from container_serve.settings import SettingsError
from container_serve.user_code import UserCodeError
from local_test import pack
from local_test.errors import LocalError
from scripts.cloud.aws import Aws
from scripts.cloud.command import progress
from scripts.cloud.errors import CloudError, code_of
from scripts.cloud.names import S3Uri

FORMAT_LABEL = "byoc.format-version"  # in docker/serve.Dockerfile: the newest model.json that the image reads
TITLE_LABEL = "org.opencontainers.image.title"
TARGETS = {"byoc-serve": "serve", "byoc-serve-torch": "serve-torch"}


@dataclass(frozen=True)
class Server:
    """What reads the artifact: a serving image of this project, and its environment."""

    image: str
    format_version: int
    target: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, image: str, labels: Mapping[str, str] | None, environment: Mapping[str, str]) -> "Server | None":
        """None for an image that does not say what it is.

        Raises CloudError for an image that cannot serve at all, and for variables that its server would refuse.
        """
        labels = labels or {}
        title, version = labels.get(TITLE_LABEL, ""), labels.get(FORMAT_LABEL, "")
        if title == "byoc-train":
            raise CloudError(f"--image {image} is the image that trains: give the one that serves, byoc-serve", 2)
        if title not in TARGETS or not version.isdecimal():
            return None
        target = TARGETS[title]
        try:
            ServerSettings.read(environment)
        except SettingsError as error:
            raise CloudError(f"--environment {error}", 2) from None
        return cls(image, int(version), target, environment)


def s3_uri(text: str, flag: str = "--model-data") -> S3Uri:
    """The address of one model.tar.gz. Raises CloudError."""
    uri = S3Uri.parse(text, flag)
    if not uri.key.endswith(".tar.gz"):
        raise CloudError(f"{flag} has value {text!r}: expected s3://BUCKET/.../model.tar.gz, the file itself", 2)
    return uri


def fetch(aws: Aws, uri: S3Uri, target: Path) -> None:
    """Unpack it into the new folder `target` while it arrives. Raises CloudError where it is not there or damaged."""
    try:
        answer = aws.client("s3").get_object(Bucket=uri.bucket, Key=uri.key)
    except ClientError as error:
        raise _missing(error, uri) or error from None
    size = int(answer["ContentLength"])
    progress(f"reading {uri} ({size / 1e6:,.1f} MB) to check it")
    with _metered(answer["Body"], size) as stream:
        _unpack(stream, target, str(uri))


def need(aws: Aws, uri: S3Uri) -> None:
    """Raises CloudError where it is not there."""
    try:
        aws.client("s3").head_object(Bucket=uri.bucket, Key=uri.key)
    except ClientError as error:
        raise _missing(error, uri) or error from None


def unpack(path: Path, target: Path) -> None:
    """The same from this machine."""
    try:
        with path.open("rb") as stream:
            _unpack(stream, target, str(path))
    except FileNotFoundError:
        raise CloudError(f"--model-data {path} is not there", 2) from None
    except IsADirectoryError:
        raise CloudError(f"--model-data {path} is a folder: give the model.tar.gz in it", 2) from None


def check(folder: Path, where: str, server: Server) -> str:
    """What the unpacked artifact is, in a few words; `where` names it in errors.

    The checks are those that the server makes when it starts. Raises CloudError for what it would refuse.
    """
    nested = next(iter(folder.glob(f"*/{MODEL_JSON}")), None)
    if nested and not (folder / MODEL_JSON).exists():
        raise CloudError(
            f"{where}: {MODEL_JSON} lies in {nested.parent.name}/ inside the archive, and has to lie at its top:"
            f" pack it with tar -C {nested.parent.name} -czf model.tar.gz ."
        )
    try:
        if server.format_version > FORMAT_VERSION:
            # The image knows more than this checkout: what it makes of the rest only it can say.
            progress(f"{server.image} is newer than this checkout: {where} was not checked in full")
            return "not checked in full"
        model = artifact.read(folder)
        environment = {**server.environment, "BYOC_TARGET": server.target}
        if server.target == "serve":
            user_code.find(ServerSettings.read(environment), folder)
    except (ArtifactError, UserCodeError) as error:
        raise CloudError(f"{where}: {str(error).replace(f'{folder}/', '').replace(str(folder), where)}") from None
    version = model.document["format_version"]
    if version > server.format_version:
        raise CloudError(
            f"{where}: {MODEL_JSON}: made by a newer version (format_version {version}), {server.image} reads up to"
            f" {server.format_version}: serve it with a newer image (scripts/push.sh serve)"
        )
    return f"{model.architecture}, {len(model.classes)} classes, {model.precision}"


def _missing(error: ClientError, uri: S3Uri) -> CloudError | None:
    if code_of(error) in {"NoSuchKey", "404", "NotFound"}:
        return CloudError(f"{uri} is not there: check --model-data; train.py prints where a job leaves its model")
    return None


def _unpack(stream: BinaryIO, target: Path, where: str) -> None:
    try:
        pack.unpack_stream(stream, target, where)
    except LocalError as error:
        raise CloudError(str(error)) from None


@contextmanager
def _metered(body: Any, size: int) -> Iterator[BinaryIO]:
    """A stream of `size` bytes that shows on a terminal how far it has come."""
    with tqdm(total=size, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False) as bar:

        class Metered:
            def read(self, length: int = -1) -> bytes:
                piece: bytes = body.read(length if length >= 0 else None)
                bar.update(len(piece))
                return piece

        yield cast(BinaryIO, Metered())
