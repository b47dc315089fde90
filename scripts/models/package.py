"""A version of a model in the model registry: made of an image and an artifact, approved, and found for deployment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from container_serve import scratch
from container_serve.codec.media import ANSWER_TYPES, IMAGE_TYPES, JSON, JSON_LINES
from scripts.aws import creation, instances, names, requests
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, is_missing
from scripts.aws.names import Image, Reference, S3Uri
from scripts.aws.polling import ENDPOINT_SECONDS, poll
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints import model_data
from scripts.images import registry
from scripts.models import documents
from scripts.s3 import storage

PENDING, APPROVED = "PendingManualApproval", "Approved"
QUALITY = "model_quality.json"  # beside the artifact, whose job accounts for it
POLL_SECONDS = 2.0
# Those that both endpoints and transform jobs take, and whose price is known (scripts/aws/instances.py).
INSTANCE_TYPES = ("ml.m5.large", "ml.m5.xlarge", "ml.m5.2xlarge", "ml.c5.xlarge", "ml.c5.2xlarge")


@dataclass(frozen=True)
class Package:
    arn: str
    group: str
    version: int
    approval: str
    image: str
    model_data: S3Uri

    def __str__(self) -> str:
        return f"{self.group}:{self.version}"


def group_request(group: str, settings: Settings) -> Request:
    tags = names.tag_list(settings.all_tags())
    return Request("sagemaker", "CreateModelPackageGroup", {"ModelPackageGroupName": group, "Tags": tags})


def package_request(
    group: str, image: str, artifact: S3Uri, kind: str | None, digest: str | None = None, card: str | None = None
) -> Request:
    """CreateModelPackage. Its tags are those of the group.

    `kind`: an instance type that it shall support first, and alone if it has ARM processors.
    """
    container = {"Image": image, "ModelDataUrl": str(artifact), **({"ImageDigest": digest} if digest else {})}
    usual = [] if instances.architecture(kind or "") == "arm64" else list(INSTANCE_TYPES)
    kinds = list(dict.fromkeys([*([kind] if kind else []), *usual]))
    statistics = {"ContentType": JSON, "S3Uri": str(_quality_of(artifact))}
    request: dict[str, Any] = {
        "ModelPackageGroupName": group,
        "ModelApprovalStatus": PENDING,
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": [*IMAGE_TYPES, JSON, JSON_LINES],
            "SupportedResponseMIMETypes": list(ANSWER_TYPES),
            "SupportedRealtimeInferenceInstanceTypes": kinds,
            **({"SupportedTransformInstanceTypes": usual} if usual else {}),
        },
        "ModelMetrics": {"ModelQuality": {"Statistics": statistics}},
    }
    if card:
        request["ModelCard"] = {"ModelCardContent": card, "ModelCardStatus": "Draft"}
    return Request("sagemaker", "CreateModelPackage", request)


def dry(group: str, image: str, artifact: S3Uri, kind: str | None, settings: Settings) -> list[Request]:
    """For --dry-run."""
    progress("--dry-run: the image's digest and the model card are left out: they are read from AWS")
    return [group_request(group, settings), package_request(group, image, artifact, kind)]


def register(
    aws: Aws,
    group: str,
    image: str,
    artifact: S3Uri,
    kind: str | None,
    environment: Mapping[str, str],
    settings: Settings,
) -> Package:
    """Make a version that waits for approval, in a group that is made where it is missing.

    Raises CloudError where the image cannot serve the artifact, or the service refuses the version.
    """
    model = model_data.need_servable(aws, image, artifact, environment)
    model_data.need_architecture(aws, image, kind or INSTANCE_TYPES[0])
    digest = registry.find(aws, Image.parse(image))
    matrix = documents.confusion(aws, artifact)
    with scratch.folder() as folder:
        file = folder / QUALITY
        file.write_text(json.dumps(documents.quality(model, matrix), indent=2))
        storage.upload_file(aws, file, _quality_of(artifact), settings)
    made = group_request(group, settings)
    if creation.description(aws, made) is None:
        creation.create(aws, made)
        progress(f"created the model package group {group}")
    request = package_request(group, image, artifact, kind, digest, documents.card(model, artifact, image))
    arn = requests.send(aws, request)["ModelPackageArn"]
    found = poll(
        lambda: _described(aws, arn),
        lambda one: one["ModelPackageStatus"] not in ("Pending", "InProgress"),
        pause=POLL_SECONDS,
        seconds=ENDPOINT_SECONDS,
        answered=True,
    )
    package = _package(found)
    if found["ModelPackageStatus"] != "Completed":
        raise CloudError(f"the model package {package} is {found['ModelPackageStatus']}: {_reason(found)}")
    progress(f"registered {package}, which waits for approval: scripts/deploy.py --approve {package}")
    return package


def approve(aws: Aws, reference: Reference) -> Package:
    """Approve a version, or the newest one that waits for it. Raises CloudError where there is none."""
    package = find(aws, reference, PENDING)
    requests.send(aws, approval_request(package.arn))
    progress(f"approved {package}; deploy it: scripts/deploy.py --model-package {reference.group}")
    return package


def approval_request(arn: str) -> Request:
    return Request("sagemaker", "UpdateModelPackage", {"ModelPackageArn": arn, "ModelApprovalStatus": APPROVED})


def find(aws: Aws, reference: Reference, approval: str) -> Package:
    """Return the version, or without one the newest with this `approval`. Raises CloudError where there is none."""
    query: dict[str, Any] = {"ModelPackageGroupName": reference.group}
    pages = aws.client("sagemaker").get_paginator("list_model_packages").paginate(**query)
    try:
        all_of_it = [one for page in pages for one in page["ModelPackageSummaryList"]]
    except ClientError as error:
        if not is_missing(error):
            raise
        all_of_it = []
    if reference.version is None:
        wanted = [one for one in all_of_it if one.get("ModelApprovalStatus") == approval]
    else:
        wanted = [one for one in all_of_it if one["ModelPackageVersion"] == reference.version]
    if not wanted:
        known = ", ".join(f"{one['ModelPackageVersion']} {one.get('ModelApprovalStatus', '')}" for one in all_of_it)
        which = f"version {reference.version}" if reference.version else f"version that is {approval}"
        has = f"it has {known}" if known else "nothing is registered there"
        waiting = bool(known) and approval == APPROVED and reference.version is None
        remedy = f"; scripts/deploy.py --approve {reference.group}:N approves one" if waiting else ""
        raise CloudError(f"{reference.group} has no {which} in {aws.region}: {has}{remedy}")
    newest = max(wanted, key=lambda one: int(one["ModelPackageVersion"]))
    return _package(_described(aws, newest["ModelPackageArn"]))


def need_approved(aws: Aws, reference: Reference) -> Package:
    """Return what is to be deployed. Raises CloudError for a version that is not approved."""
    package = find(aws, reference, APPROVED)
    if package.approval != APPROVED:
        raise CloudError(f"{package} is {package.approval}: approve it with scripts/deploy.py --approve {package}")
    return package


def _described(aws: Aws, arn: str) -> dict[str, Any]:
    return requests.need(aws, "ModelPackage", arn, "model package")


def _package(found: Mapping[str, Any]) -> Package:
    """Raises CloudError for one that is not of one container with one artifact: another program's."""
    containers = found.get("InferenceSpecification", {}).get("Containers", [])
    if len(containers) != 1 or not containers[0].get("ModelDataUrl"):
        raise CloudError(f"{found['ModelPackageArn']} is not one container with one model.tar.gz: deploy it by hand")
    return Package(
        arn=found["ModelPackageArn"],
        group=found["ModelPackageGroupName"],
        version=found["ModelPackageVersion"],
        approval=found.get("ModelApprovalStatus", ""),
        image=containers[0]["Image"],
        model_data=S3Uri.parse(containers[0]["ModelDataUrl"], "ModelDataUrl"),
    )


def _reason(found: Mapping[str, Any]) -> str:
    steps = found.get("ModelPackageStatusDetails", {}).get("ValidationStatuses", [])
    return next((step["FailureReason"] for step in steps if step.get("FailureReason")), "SageMaker gives no reason")


def _quality_of(artifact: S3Uri) -> S3Uri:
    return S3Uri(artifact.bucket, artifact.key.rpartition("/")[0]) / QUALITY
