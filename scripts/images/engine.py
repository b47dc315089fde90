"""The Docker engine of this machine, through its API: its images, pulling and pushing them."""

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag

import docker
from scripts.aws.errors import CloudError, one_line
from scripts.dataset.progress import Progress

ANSWER_SECONDS = 180  # that the engine may be silent: longer than a container takes to stop

# (what the engine says, what to do). `{host}` is the registry; whatever is not here may go well when it is tried again.
_FINAL = (
    (r"immutable", "another push was faster: give another --tag"),
    (r"no space left", "the disk of the engine or of the registry is full; `docker system prune` frees the engine's"),
    (r"HTTP response to HTTPS", 'list {host} in "insecure-registries" of the engine\'s daemon.json'),
    (r"x509|certificate", "put the registry's CA into /etc/docker/certs.d/{host}/ca.crt on the engine's machine"),
    (r"name unknown|[Nn]ame_?[Uu]nknown|[Rr]epository .* (not found|does not exist)", "make the repository first"),
    (r"invalid reference|No such image|does not exist locally", "check the registry's name and --tag"),
)
_DENIED = r"denied|[Ff]orbidden|\b403\b|unauthorized|\b401\b|authentication required|no basic auth|incorrect username"


class RetryableError(CloudError):
    """It may go well when it is tried again."""


class AccessDenied(CloudError):
    """The registry wants other credentials, or the same with more rights."""


@dataclass(frozen=True)
class LocalImage:
    """`id` is the digest of the image's configuration or, in containerd's store, of its manifest."""

    name: str
    id: str
    platform: str  # linux/amd64
    bytes: int
    labels: Mapping[str, str]
    media_type: str | None  # of the manifest, where the engine knows it before a push
    pushed: frozenset[str]  # REPOSITORY@DIGEST, where it was pushed to or pulled from


def connect() -> Any:
    """Return docker-py's client of the engine that DOCKER_HOST or the current context names.

    Raises CloudError where none answers.
    """
    try:
        context = None if os.environ.get("DOCKER_HOST") else ContextAPI.get_current_context()
        if context is None or context.Name == "default":
            client = docker.from_env(timeout=ANSWER_SECONDS)
        else:
            client = docker.DockerClient(context.Host, timeout=ANSWER_SECONDS, tls=context.TLSConfig or False)
        client.ping()
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        reason = one_line(str(error))[:300]
        raise CloudError(f"no Docker daemon answers: install Docker, or start it ({reason})") from None
    return client


def find_image(client: Any, name: str) -> LocalImage | None:
    """None where there is no image of this name."""
    try:
        found = client.images.get(name).attrs
    except ImageNotFound:
        return None
    return LocalImage(
        name=name,
        id=found["Id"],
        platform=f"{found.get('Os')}/{found.get('Architecture')}",
        bytes=found.get("Size", 0),
        labels=(found.get("Config") or {}).get("Labels") or {},
        media_type=(found.get("Descriptor") or {}).get("mediaType"),
        pushed=frozenset(found.get("RepoDigests") or ()),
    )


def push(client: Any, image: LocalImage, repository: str, tag: str, credentials: Mapping[str, str] | None) -> None:
    """Name the image REPOSITORY:TAG and push it; layers that are there are not sent again.

    `credentials`: username and password; None: those of `docker login`. Raises AccessDenied, RetryableError or
    CloudError.
    """
    host = repository.partition("/")[0]
    with explained(host):
        client.api.tag(image.name, repository, tag)
        sent = client.api.push(repository, tag, stream=True, decode=True, auth_config=credentials)
        _watch(sent, Progress(f"{repository}:{tag}", image.bytes), host)


def need_image(client: Any, name: str) -> None:
    """Pull an image that is not on this machine, as `docker login` allows. Raises CloudError."""
    if find_image(client, name):
        return
    repository, tag = parse_repository_tag(name)
    host = name.partition("/")[0]
    try:
        with explained(host):
            received = client.api.pull(repository, tag or "latest", stream=True, decode=True)
            _watch(received, Progress(f"pulling {name}", None), host)
    except CloudError as error:
        remedy = "build it with scripts/build.sh, or sign in to its registry"
        raise CloudError(f"{name} is not on this machine, and cannot be pulled ({error}): {remedy}") from None


@contextlib.contextmanager
def explained(host: str) -> Any:
    """Turn what docker-py raises into the one line for it."""
    try:
        yield
    except APIError as error:
        raise explain(str(error.explanation or error), host) from None
    except (DockerException, requests.RequestException) as error:
        raise RetryableError(f"Docker: {one_line(str(error))[:300]}") from None


def explain(said: str, host: str) -> CloudError:
    """Return the one line for an error of the engine's."""
    text = one_line(said)
    if "token has expired" in text:
        return RetryableError(text)
    for pattern, remedy in _FINAL:
        if re.search(pattern, text):
            return CloudError(f"{text}: {remedy.format(host=host)}")
    return AccessDenied(text) if re.search(_DENIED, text) else RetryableError(text)


@functools.cache
def compose() -> tuple[str, ...] | None:
    """Return the command of Docker Compose on this machine, as a plugin or as a program; None where there is none."""
    for command in (("docker", "compose"), ("docker-compose",)):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "version"], capture_output=True).returncode == 0:
                return command
    return None


def _watch(events: Iterable[Mapping[str, Any]], progress: Progress, host: str) -> None:
    """Count the bytes of all layers until the transfer has ended. Raises what `explain` makes of an error."""
    done: dict[str, int] = {}
    with progress:
        for event in events:
            if "error" in event:
                raise explain(str(event["error"]), host)
            layer, now = str(event.get("id")), (event.get("progressDetail") or {}).get("current") or 0
            if now > done.get(layer, 0):
                progress.update(now - done.get(layer, 0))
                done[layer] = now
