"""ECR: repositories, signing in to them, and what is in them."""

import contextlib
import json
from typing import Any

from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, tag_list
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
from scripts.console.command import progress

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
UNTAGGED_DAYS = 14
# Every push has a tag of its own. An endpoint fetches its image again whenever it scales, so the number is generous.
TAGGED_IMAGES = 100


def _rule(priority: int, description: str, status: str, **count: Any) -> dict[str, Any]:
    selection = {"tagStatus": status, **count}
    return {"rulePriority": priority, "description": description, "selection": selection, "action": {"type": "expire"}}


_OLD = {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": UNTAGGED_DAYS}
_MANY = {"tagPatternList": ["*"], "countType": "imageCountMoreThan", "countNumber": TAGGED_IMAGES}
LIFECYCLE = {
    "rules": [
        _rule(1, f"untagged images go after {UNTAGGED_DAYS} days", "untagged", **_OLD),
        _rule(2, f"of the tagged images the newest {TAGGED_IMAGES} stay", "tagged", **_MANY),
    ]
}


def repository_requests(name: str, settings: Settings) -> list[Request]:
    """The requests that make a repository: fixed tags, scans, encryption, and an end of untagged and old images."""
    key = settings.output_kms_key
    create = {
        "repositoryName": name,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": key} if key else {"encryptionType": "AES256"},
        "tags": tag_list(settings.all_tags()),
    }
    lifecycle = {"repositoryName": name, "lifecyclePolicyText": json.dumps(LIFECYCLE)}
    return [Request("ecr", "CreateRepository", create), Request("ecr", "PutLifecyclePolicy", lifecycle)]


def ensure_repository(aws: Aws, name: str, settings: Settings) -> dict[str, Any]:
    """ECR's description of the repository, made with its lifecycle rules if it is missing. One that exists is used as
    it is."""
    ecr = aws.client("ecr")
    create, lifecycle = repository_requests(name, settings)
    found = described(ecr, name)
    if found is None:
        # Made already by a first try whose answer was lost, or by another call just now.
        with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            send(aws, create)
        send(aws, lifecycle)
        found = described(ecr, name)
        progress(f"created the repository {name} in {aws.region}, account {aws.identity.account}")
    assert found
    return found


def find(aws: Aws, image: Image) -> str:
    """The digest of an image in ECR. Raises CloudError where repository or tag is missing."""
    digest: str = _image(aws, image)["imageId"]["imageDigest"]
    return digest


def image_labels(aws: Aws, image: Image) -> dict[str, str]:
    """The labels of an image in ECR; empty where they cannot be read. Raises CloudError as `find` does."""
    return (_config(aws, image).get("config") or {}).get("Labels") or {}


def image_architecture(aws: Aws, image: Image) -> str | None:
    """Return amd64 or arm64; None where it cannot be read. Raises CloudError as `find` does."""
    return _config(aws, image).get("architecture")


def _config(aws: Aws, image: Image) -> dict[str, Any]:
    """The configuration of an image in ECR.

    Empty where it cannot be read: it is a list of several images, or the permission ecr:GetDownloadUrlForLayer or the
    way to ECR's bucket is lacking.
    """
    import requests

    digest = json.loads(_image(aws, image)["imageManifest"]).get("config", {}).get("digest", "")
    layer = {"registryId": image.account, "repositoryName": image.repository, "layerDigest": digest}
    try:
        url = send(aws, Request("ecr", "GetDownloadUrlForLayer", layer))["downloadUrl"]
        answer = requests.get(url, timeout=(10, 60))
        answer.raise_for_status()
        found = answer.json()
    except (ClientError, CloudError, requests.RequestException, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _image(aws: Aws, image: Image) -> dict[str, Any]:
    """ECR's description of the image, `imageId` and `imageManifest`."""
    wanted = {"imageDigest": image.digest} if image.digest else {"imageTag": image.tag}
    found = look_up(aws, image.account, image.repository, wanted)
    if found is None:
        raise CloudError(f"the image {image.uri} is not in ECR: push it with scripts/push.sh, which prints its URI")
    return found


def look_up(aws: Aws, account: str, repository: str, identifier: dict[str, Any]) -> dict[str, Any] | None:
    """Return ECR's `imageId` and `imageManifest` of an imageTag or imageDigest; None where it is missing."""
    request = {
        "registryId": account,
        "repositoryName": repository,
        "imageIds": [identifier],
        "acceptedMediaTypes": [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX],
    }
    try:
        found: list[dict[str, Any]] = send(aws, Request("ecr", "BatchGetImage", request)).get("images", [])
    except aws.client("ecr").exceptions.RepositoryNotFoundException:
        return None
    return found[0] if found else None


def described(ecr: Any, name: str) -> dict[str, Any] | None:
    """Return ECR's description of a repository; None where there is none of this name."""
    try:
        found: list[dict[str, Any]] = ecr.describe_repositories(repositoryNames=[name])["repositories"]
    except ecr.exceptions.RepositoryNotFoundException:
        return None
    return found[0] if found else None
