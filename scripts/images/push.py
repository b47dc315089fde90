"""Push the images of the files as they are now to ECR, or to another registry; prints their URIs with digest.

Images that are not built yet are built, repositories that are missing are made, images that are there already are not
pushed again. A push that breaks off is tried again, and the next call continues where it was.

scripts/push.sh                                            both images to ECR: byoc-train and byoc-serve
scripts/push.sh train                                      one of them; IMAGE=$(scripts/push.sh train)
scripts/push.sh serve-torch                                the serving image for artifacts with code of their own
scripts/push.sh serve --platform linux/arm64               for Graviton instances (ml.c7g, ml.m8g ...)
scripts/push.sh --dry-run                                  prints the requests to ECR as JSON, sends nothing
scripts/push.sh serve --registry registry.example.com/team       elsewhere, after `docker login registry.example.com`
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from container_serve import __version__
from local_test import engine as local_engine
from scripts.aws import settings
from scripts.aws.errors import CloudError
from scripts.aws.requests import show
from scripts.console import command
from scripts.console.command import progress
from scripts.images import engine, registry
from scripts.images.destination import Destination, Ecr, GenericRegistry, RemoteImage
from scripts.images.engine import AccessDenied, LocalImage, RetryableError
from scripts.images.registry import DOCKER_MANIFEST

PROGRAM = "push.sh"
TARGETS = {"train": ("train",), "serve": ("serve",), "serve-torch": ("serve-torch",), "all": ("train", "serve")}
PLATFORMS = ("linux/amd64", "linux/arm64")
PAUSES = (2.0, 5.0, 15.0)  # seconds before the second, third and fourth try

_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)
_HOST = re.compile(r"[a-z0-9.-]+(?::\d+)?(?:/[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)?\Z", re.IGNORECASE)


def main(arguments: Sequence[str]) -> int:
    parser = command.parser(PROGRAM, __doc__ or "")
    parser.add_argument("target", nargs="?", choices=[*TARGETS], default="all", help="(default: all, train and serve)")
    parser.add_argument("--tag", help="(default: version, hash of the files and image id: no two images share one)")
    parser.add_argument("--registry", metavar="HOST[/PATH]", help="push there instead of ECR, with your docker login")
    parser.add_argument("--platform", choices=PLATFORMS, default=PLATFORMS[0], help="(default: linux/amd64)")
    parser.add_argument("--dry-run", action="store_true", help="print the requests to ECR as JSON, send nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    settings.add_flags(parser, "project", "tags", "output_kms_key")
    flags = parser.parse_args(arguments)
    chosen = settings.load(flags)
    targets = TARGETS[flags.target]
    if flags.tag is not None and not _TAG.match(flags.tag):
        raise CloudError(f"--tag has value {flags.tag!r}: expected letters, digits and _ . -, at most 128", 2)
    place = flags.registry and flags.registry.rstrip("/")
    if place is not None and not _HOST.match(place):
        raise CloudError(f"--registry has value {flags.registry!r}: expected HOST, HOST:PORT or HOST/PATH", 2)
    if place is None:
        chosen.need_region()
    if flags.dry_run:
        names = [f"{chosen.project}-{target}" for target in targets if place is None]
        print(show([request for name in names for request in registry.repository_requests(name, chosen)]))
        return 0

    client = engine.connect()
    destination: Destination
    destination = GenericRegistry(client, place, chosen) if place else Ecr(chosen.aws(), targets, chosen)
    images = [_checked(built(client, target, flags.platform), flags.platform) for target in targets]
    results = []
    for target, image in zip(targets, images, strict=True):
        # The hash of the files knows nothing of the base image and of the day of the build.
        unique = f"{__version__}-{image.labels['byoc.content']}-{image.id.removeprefix('sha256:')[:8]}"
        result = push(client, image, target, destination, flags.tag or unique)
        results.append(result)
        if not flags.json:
            print(result["uri"], flush=True)
    if flags.json:
        print(json.dumps({"images": results}, indent=2))
    return 0


def built(client: Any, target: str, platform: str) -> LocalImage:
    """The image of the files as they are now; built where there is none yet."""
    image = engine.find_image(client, local_engine.own_image(target, platform.removeprefix("linux/")))
    if image is None:
        raise CloudError(f"byoc-{target} is not on the engine that DOCKER_HOST or Docker's context names")
    return image


def push(client: Any, image: LocalImage, target: str, destination: Destination, tag: str) -> dict[str, Any]:
    """Push one image unless it is there, and check what is there then; tried again where the connection breaks."""
    for pause in (*PAUSES, None):
        try:
            return _push_once(client, image, target, destination, tag)
        except AccessDenied as error:
            raise CloudError(f"{error}: {destination.denied}") from None
        except RetryableError as error:
            if pause is None:
                raise CloudError(f"{error}: call this again, what is there is not sent again") from None
            progress(f"{image.name}: {error}; trying again in {pause:g} s")
            time.sleep(pause)
        except KeyboardInterrupt:
            raise command.Interrupted("broken off: call this again, layers that are there are not sent again") from None
    raise AssertionError  # the last try returns or raises


def _push_once(client: Any, image: LocalImage, target: str, destination: Destination, tag: str) -> dict[str, Any]:
    repository = destination.repository(target)
    name = f"{repository}:{tag}"
    there = destination.find(target, tag, image)
    if is_same := there is not None and there.is_same:
        progress(f"{image.name} is in {repository} already")
    else:
        if there is not None and destination.immutable(target):
            _check_remote(there, name)
            remedy = f"give another --tag, or use {repository}@{there.digest}"
            raise CloudError(f"{name} is another image, and tags there cannot be moved: {remedy}")
        if there is not None:
            progress(f"{name} was another image, {there.digest}")
        progress(f"pushing {image.name} ({image.bytes / 1e6:,.1f} MB) to {name}")
        begun = time.monotonic()
        try:
            engine.push(client, image, repository, tag, destination.credentials())
        except CloudError:
            # The last answer may be all that was lost; a second try is told that tags cannot be moved.
            there = destination.find(target, tag, image)
            if there is None or not there.is_same:
                raise
        progress(f"pushed {image.name} in {time.monotonic() - begun:.0f} s")
        there = destination.find(target, tag, engine.find_image(client, image.name) or image)
        if there is None:
            raise RetryableError(f"{name} was pushed and is not there")
    assert there is not None
    _check_remote(there, name)
    if not there.is_same:
        raise CloudError(f"{name} is another image, {there.digest}: another push was faster, give another --tag")
    # SageMaker takes a tag or a digest, not both, and a digest means one image forever.
    uri = f"{repository}@{there.digest}"
    made = {"target": target, "uri": uri, "repository": repository, "tag": tag, "digest": there.digest}
    return {**made, "pushed": not is_same}


def _checked(image: LocalImage, platform: str) -> LocalImage:
    """Refuse before a push of gigabytes what would be refused after it."""
    target = image.name.removeprefix("byoc-").partition(":")[0]
    if image.platform != platform:
        again = f"build it again with scripts/build.sh {target} --platform {platform}"
        raise CloudError(f"{image.name} is for {image.platform}, not {platform}: {again}")
    if image.media_type not in (None, DOCKER_MANIFEST):
        raise CloudError(f"{image.name} is stored as {_remedy(image.media_type)}")
    return image


def _check_remote(there: RemoteImage, reference: str) -> None:
    if there.media_type != DOCKER_MANIFEST:
        raise CloudError(f"{reference} is there as {_remedy(there.media_type)}, and give another --tag")


def _remedy(media_type: str | None) -> str:
    way = "build it with scripts/build.sh on an engine whose containerd image store is off"
    return f"{media_type}, and SageMaker takes {DOCKER_MANIFEST} only: {way}"


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
