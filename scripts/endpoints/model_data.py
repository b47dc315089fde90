"""model.tar.gz before it is deployed: where it lies, and whether an image can serve it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from container_serve import artifact, scratch
from container_serve.artifact import FORMAT_VERSION, MODEL_JSON
from container_serve.errors import ServeError
from container_serve.settings import Settings as ServerSettings
from container_serve.worker import user_code
from container_train.errors import did_you_mean
from local_test import pack
from scripts.aws import instances
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, S3Uri
from scripts.console.command import progress
from scripts.dataset.progress import Progress
from scripts.images import registry
from scripts.s3 import objects

FORMAT_LABEL = "byoc.format-version"  # in docker/serve.Dockerfile: the newest model.json that the image reads
TITLE_LABEL = "org.opencontainers.image.title"
VARIABLES = (
    "BYOC_MAX_PIXELS", "BYOC_MODEL_DIR", "BYOC_PAGE", "BYOC_PICTURE_BYTES", "BYOC_QUEUE_SIZE", "BYOC_THREADS",
    "BYOC_USER",
)  # fmt: skip
NOT_CHECKED = "{} is not of this project: whether it can serve {} was not checked"
TARGETS = {"byoc-serve": "serve", "byoc-serve-torch": "serve-torch"}


@dataclass(frozen=True)
class Server:
    """The reader of the artifact: a serving image of this project, and its environment."""

    format_version: int
    target: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, image: str, labels: Mapping[str, str], environment: Mapping[str, str]) -> "Server | None":
        """None for an image that is none of this project's, or does not say what it reads.

        Raises CloudError for an image that cannot serve at all, and for variables that its server would refuse.
        """
        title, version = labels.get(TITLE_LABEL, ""), labels.get(FORMAT_LABEL, "")
        if title == "byoc-train":
            raise CloudError(f"--image {image} is the image that trains: give the one that serves, byoc-serve", 2)
        if title not in TARGETS or not version.isdecimal():
            return None
        check_environment(environment)
        return cls(int(version), TARGETS[title], environment)


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises CloudError for variables that this project's server would refuse; says which it does not know."""
    try:
        ServerSettings.read(environment)
    except ServeError as error:
        raise CloudError(f"--environment {error}", 2) from None
    for name in environment:
        if name.startswith("BYOC_") and name not in VARIABLES:
            hint = did_you_mean(name, VARIABLES, "docs/serving.md lists them all")
            progress(f"warning: --environment {name}: the server knows no such variable: {hint}")


def need_servable(aws: Aws, uri: str, artifact: S3Uri, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return model.json, empty for an image of others.

    Raises CloudError where image or artifact is missing, or the one cannot serve the other.
    """
    image = Image.parse(uri)
    registry.find(aws, image)
    server = Server.of(uri, registry.image_labels(aws, image), environment)
    if server is None:
        if objects.head(aws, artifact) is None:
            raise _missing(artifact)
        progress(NOT_CHECKED.format(uri, artifact))
        return {}
    with scratch.folder() as folder:
        model = folder / "model"
        fetch(aws, artifact, model)
        progress(check(model, str(artifact), server, uri))
        return _document(model)


def need_architecture(aws: Aws, uri: str, instance_type: str | None) -> None:
    """Raises CloudError where the image is for other processors than the instances have.

    `instance_type`: A,B for several; None for a serverless endpoint, which the service runs on amd64.
    """
    found = registry.image_architecture(aws, Image.parse(uri))
    kinds = instances.kinds(instance_type) if instance_type else ["--serverless"]
    for kind in kinds if found else ():
        needed = instances.architecture(kind)
        if needed != found:
            types = "ml.c7g.large, ml.m8g.large" if found == "arm64" else "ml.m5.large, ml.c6i.xlarge"
            give = f"give the one that scripts/push.sh serve --platform linux/{needed} prints, or take {types}"
            raise CloudError(f"{kind} needs an image for linux/{needed}, and {uri} is for linux/{found}: {give}", 2)


def s3_uri(text: str, flag: str = "--model-data") -> S3Uri:
    """The address of one model.tar.gz. Raises CloudError."""
    uri = S3Uri.parse(text, flag)
    if not uri.key.endswith(".tar.gz"):
        raise CloudError(f"{flag} has value {text!r}: expected s3://BUCKET/.../model.tar.gz, the file itself", 2)
    return uri


def fetch(aws: Aws, uri: S3Uri, target: Path) -> None:
    """Unpack it into the new folder `target` while it arrives. Raises CloudError where it is not there or damaged."""
    answer = objects.opened(aws, uri)
    if answer is None:
        raise _missing(uri)
    progress(f"reading {uri} ({answer['ContentLength'] / 1e6:,.1f} MB) to check it")
    with Progress.wrapattr(answer["Body"], "read", answer["ContentLength"], name=str(uri)) as stream:
        pack.unpack_stream(cast(BinaryIO, stream), target, str(uri))


def _missing(uri: S3Uri) -> CloudError:
    return CloudError(f"{uri} is not there: check --model-data; train.py prints where a job leaves its model")


def file(text: str, flag: str = "--model-data") -> Path:
    """A model.tar.gz on this machine. Raises CloudError where it is no file."""
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        is_model = (path / MODEL_JSON).exists()
        advice = f"pack it with tar -C {path} -czf model.tar.gz ." if is_model else "give the model.tar.gz in it"
        raise CloudError(f"{flag} {path} is a folder: {advice}", 2)
    if not path.exists():
        raise CloudError(f"{flag} {path} is not there", 2)
    return path


def check(folder: Path, where: str, server: Server | None, image: str) -> str:
    """Return a few words on the unpacked artifact; `where` names it in errors.

    The checks are those that the server makes when it starts; what an image of others (`server` is None) would refuse
    is not known. Raises CloudError.
    """
    if server is None:
        return NOT_CHECKED.format(image, where)
    nested = next(iter(folder.glob(f"*/{MODEL_JSON}")), None)
    if nested and not (folder / MODEL_JSON).exists():
        inside = f"{MODEL_JSON} is in {nested.parent.name}/ inside the archive, and has to be at its top"
        raise CloudError(f"{where}: {inside}: pack it with tar -C {nested.parent.name} -czf model.tar.gz .")
    version = _document(folder).get("format_version")
    version = version if type(version) is int else 0
    if min(version, server.format_version) > FORMAT_VERSION:
        return f"{where} is newer than this checkout: whether {image} can serve it was not checked"
    try:
        model = artifact.read(folder)
        if server.target == "serve":
            user_code.find(ServerSettings.read({**server.environment, "BYOC_TARGET": server.target}), folder)
    except ServeError as error:
        raise CloudError(f"{where}: {str(error).replace(f'{folder}/', '').replace(str(folder), where)}") from None
    if version > server.format_version:
        newer = f"made by a newer version (format_version {version}), {image} reads up to {server.format_version}"
        raise CloudError(f"{where}: {MODEL_JSON}: {newer}: serve it with a newer image (scripts/push.sh serve)")
    return f"the image can serve it: {model.architecture}, {len(model.classes)} classes, {model.precision}"


def _document(folder: Path) -> dict[str, Any]:
    """Return model.json of an unpacked artifact; empty where it is missing, or is no JSON object."""
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads((folder / MODEL_JSON).read_bytes())
        return document if isinstance(document, dict) else {}
    return {}
