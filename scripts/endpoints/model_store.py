"""The models of a multi-model endpoint: NAME.tar.gz below a prefix in S3, added and removed."""

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from container_serve import scratch
from container_serve.artifact import FORMAT_VERSION
from local_test import pack
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import PROJECT_TAG, Image, S3Uri
from scripts.aws.requests import Request, send, show
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints import model_data
from scripts.endpoints.deployment import Deployment
from scripts.endpoints.invocations import MODEL_SUFFIX, model_name
from scripts.endpoints.model_data import Server
from scripts.images import registry
from scripts.s3 import bucket, objects
from scripts.s3.objects import s3_location


def change(flags: argparse.Namespace, chosen: Settings) -> int:
    """`deploy.py --multi-model S3 --add NAME MODEL` or `--remove NAME`. Raises CloudError."""
    prefix = S3Uri.parse(flags.multi_model, "--multi-model")
    if flags.add:
        name, text = flags.add
        place = prefix / f"{model_name(name, '--add')}{MODEL_SUFFIX}"
        source = model_data.s3_uri(text, "--add") if text.startswith("s3://") else model_data.file(text, "--add")
        request = _put(source, place, chosen)
    else:
        place = prefix / f"{model_name(flags.remove, '--remove')}{MODEL_SUFFIX}"
        request = Request("s3", "DeleteObject", s3_location(place))
    if flags.dry_run:
        if flags.add:
            _need_servable(flags, source, chosen.need_region(), None)
        print(show([request]))
        return 0
    aws = chosen.aws()
    there = objects.head(aws, place) is not None
    if flags.add:
        if there:
            # An endpoint that has loaded it would go on with the old one.
            raise CloudError(f"{place} already exists: give another NAME, or --remove {name} first")
        _need_servable(flags, source, aws.region, aws)
        _send(aws, request)
        progress(f"added; ask for it with: scripts/predict.py ENDPOINT IMAGE --model {name} --region {aws.region}")
    else:
        if not there:
            have = ", ".join(models(aws, prefix)) or "none"
            raise CloudError(f"{place} is not there; below the prefix there are: {have}")
        _send(aws, request)
        progress("removed; an endpoint that has it in memory answers with it until it needs the memory")
    print(place)
    return 0


def models(aws: Aws, prefix: S3Uri) -> list[str]:
    """Return the names of the models below a prefix."""
    keys = (key for key, _ in bucket.below(aws, prefix))
    return sorted(key.removesuffix(MODEL_SUFFIX) for key in keys if key.endswith(MODEL_SUFFIX))


def need_image(aws: Aws, wanted: Deployment) -> None:
    """Raises CloudError where the image is missing or cannot serve; says which models there are."""
    image = Image.parse(wanted.image)
    registry.find(aws, image)
    Server.of(wanted.image, registry.image_labels(aws, image), wanted.environment)
    found = models(aws, wanted.model_data)
    listed = f"{len(found)} models below {wanted.model_data}: {', '.join(found[:10])}{' ...' if found[10:] else ''}"
    progress(listed if found else f"no models below {wanted.model_data} yet: put one there with --add NAME MODEL")


def _need_servable(flags: argparse.Namespace, source: S3Uri | Path, region: str, aws: Aws | None) -> None:
    """Raises CloudError where the image could not serve the model; without one, or without AWS, this checkout's server.

    Without AWS nobody knows whether the image takes own code, and what is in S3 is not looked into.
    """
    image = Image.parse(flags.image, region) if flags.image else None
    server: Server | None = Server(FORMAT_VERSION, "serve-torch" if image else "serve", {})
    reader = "the server of this checkout"
    if image and aws:
        registry.find(aws, image)
        server, reader = Server.of(image.uri, registry.image_labels(aws, image), {}), image.uri
    with scratch.folder() as folder:
        model = folder / "model"
        if isinstance(source, Path):
            pack.unpack(source, model)
        elif aws:
            model_data.fetch(aws, source, model)
        else:
            return
        progress(model_data.check(model, flags.add[1], server, reader))


def _put(source: S3Uri | Path, place: S3Uri, chosen: Settings) -> Request:
    """Return the request that puts a model there; by the metadata cleanup.py knows that it is the project's."""
    mark = {PROJECT_TAG: chosen.project}
    if isinstance(source, Path):
        request = objects.put(source, objects.digest(source), place, chosen)
        return Request("s3", "PutObject", {**request.request, "Metadata": {**request.request["Metadata"], **mark}})
    copy: dict[str, Any] = {
        **s3_location(place),
        "CopySource": quote(f"{source.bucket}/{source.key}"),
        "Metadata": mark,
        "MetadataDirective": "REPLACE",
        **objects.encryption(chosen),
    }
    return Request("s3", "CopyObject", copy)


def _send(aws: Aws, request: Request) -> None:
    if request.operation == "PutObject":
        objects.send(aws, request, Path(request.request["Body"]))
    else:
        send(aws, request)
