"""Resources of this project in an account, and those that only look like them: known by the tag byoc-project."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from scripts.aws import instances
from scripts.aws.account import Aws
from scripts.aws.errors import is_denied, is_missing
from scripts.aws.names import PROJECT_TAG, tag_map
from scripts.aws.parallel import gather
from scripts.aws.requests import Request, describe
from scripts.endpoints import lookup
from scripts.endpoints.deployment import ENDPOINT_TAG
from scripts.images import registry
from scripts.jobs import training_jobs
from scripts.jobs.training_jobs import tags_of


class Kind(StrEnum):
    """The kinds of resources and of assets in S3, in the order of removal: first what costs."""

    SEARCH = "tuning job"
    JOB = "training job"
    TRANSFORM = "transform job"
    WARM_POOL = "warm pool"  # the instances that an ended training job keeps, under its name
    ENDPOINT = "endpoint"
    ALARM = "alarm"
    DASHBOARD = "dashboard"
    CONFIGURATION = "configuration"
    COMPONENT = "inference component"
    MODEL = "model"
    PACKAGE = "model package"  # its name is its ARN
    GROUP = "model package group"
    REPOSITORY = "repository"
    IMAGES = "images"
    WEIGHTS = "weights"
    RESULTS = "results of a job"
    MODELS = "models"
    CAPTURES = "captured requests"


ORDER = list(Kind)
JOBS = (Kind.SEARCH, Kind.JOB, Kind.TRANSFORM, Kind.WARM_POOL)  # which end by themselves, and are stopped, not deleted
NOUNS = {
    Kind.ENDPOINT: "Endpoint",
    Kind.CONFIGURATION: "EndpointConfig",
    Kind.COMPONENT: "InferenceComponent",
    Kind.MODEL: "Model",
    Kind.JOB: "TrainingJob",
    Kind.SEARCH: "HyperParameterTuningJob",
    Kind.TRANSFORM: "TransformJob",
    Kind.WARM_POOL: "TrainingJob",
    Kind.PACKAGE: "ModelPackage",
    Kind.GROUP: "ModelPackageGroup",
}  # in the names of SageMaker's operations
RUNNING = ("InProgress", "Stopping")
TARGETS = ("train", "serve", "serve-torch")  # of scripts/push.sh
THREADS = 8  # ListTags is throttled early


@dataclass(frozen=True)
class Resource:
    kind: Kind
    name: str
    status: str = ""
    created: datetime | None = None
    usd_per_hour: float | None = None  # None: nothing, or not known
    endpoint: str | None = None  # that it was made for
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "status": self.status,
            "created": self.created.isoformat(timespec="seconds") if self.created else None,
            "usd_per_hour": self.usd_per_hour,
            "detail": self.detail,
        }


@dataclass
class Inventory:
    """`own` have the project's tag; `unmanaged` have a name like this project's, and no tag of these scripts."""

    project: str
    own: list[Resource] = field(default_factory=list)
    unmanaged: list[Resource] = field(default_factory=list)

    def of(self, *kinds: Kind) -> list[Resource]:
        return [resource for resource in self.own if resource.kind in kinds]

    def add(self, resource: Resource, tags: Mapping[str, str]) -> None:
        owner = tags.get(PROJECT_TAG)
        if owner == self.project:
            self.own.append(resource)
        elif owner is None and resource.name.startswith(self.project):
            self.unmanaged.append(resource)

    def of_endpoint(self, name: str) -> list[Resource]:
        """The endpoint, and what was made for it."""
        return [one for one in self.own if (one.kind == Kind.ENDPOINT and one.name == name) or one.endpoint == name]


def removal(kind: Kind, name: str) -> Request:
    """The request that removes it; of a job or a search, stops it."""
    if kind == Kind.REPOSITORY:
        return Request("ecr", "DeleteRepository", {"repositoryName": name, "force": True})
    if kind in (Kind.ALARM, Kind.DASHBOARD):
        noun = f"{kind.capitalize()}s"
        return Request("cloudwatch", f"Delete{noun}", {f"{noun[:-1]}Names": [name]})
    if kind == Kind.WARM_POOL:
        return training_jobs.release(name)
    verb = "Stop" if kind in JOBS else "Delete"
    return Request("sagemaker", f"{verb}{NOUNS[kind]}", {f"{NOUNS[kind]}Name": name})


def listed(aws: Aws, noun: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    """The summaries of all resources of SageMaker with this noun."""
    for page in aws.client("sagemaker").get_paginator(f"list_{xform_name(noun)}s").paginate(**parameters):
        yield from next((value for value in page.values() if isinstance(value, list)), ())


def serving(aws: Aws, found: Inventory) -> None:
    """Add endpoints, configurations and models.

    Endpoints may bear any name, and cost: all of the account are looked at. The others' names begin with the project.
    """
    _look(aws, found, Kind.ENDPOINT, listed(aws, NOUNS[Kind.ENDPOINT]))
    for kind in (Kind.CONFIGURATION, Kind.MODEL):
        _look(aws, found, kind, listed(aws, NOUNS[kind], NameContains=found.project))


def watching(aws: Aws, found: Inventory) -> None:
    """Add CloudWatch's alarms and dashboards, whose names begin with the project."""
    client = aws.client("cloudwatch")
    for kind, operation, prefix, items, name, arn in (
        (Kind.ALARM, "describe_alarms", "AlarmNamePrefix", "MetricAlarms", "AlarmName", "AlarmArn"),
        (Kind.DASHBOARD, "list_dashboards", "DashboardNamePrefix", "DashboardEntries", "DashboardName", "DashboardArn"),
    ):
        for page in client.get_paginator(operation).paginate(**{prefix: found.project}):
            for item in page[items]:
                tags = tag_map(client.list_tags_for_resource(ResourceARN=item[arn])["Tags"])
                status = item.get("StateValue", "")
                found.add(Resource(kind, item[name], status, endpoint=tags.get(ENDPOINT_TAG)), tags)


def training(aws: Aws, found: Inventory) -> None:
    """Add jobs in progress, and what ended ones keep; a tuning job's trials are training jobs, too."""
    for kind in (Kind.SEARCH, Kind.JOB, Kind.TRANSFORM):
        for status in RUNNING:
            _look(aws, found, kind, listed(aws, NOUNS[kind], StatusEquals=status))
    kept = filter(training_jobs.has_warm_pool, listed(aws, NOUNS[Kind.WARM_POOL], WarmPoolStatusEquals="Available"))
    _look(aws, found, Kind.WARM_POOL, kept)


def packages(aws: Aws, found: Inventory) -> None:
    """Add groups of the model registry, and the versions in them, which have the tags of their group."""
    _look(aws, found, Kind.GROUP, listed(aws, NOUNS[Kind.GROUP], NameContains=found.project))
    for group in found.of(Kind.GROUP):
        for one in listed(aws, NOUNS[Kind.PACKAGE], ModelPackageGroupName=group.name):
            status, version = one.get("ModelApprovalStatus", ""), f"{group.name}:{one['ModelPackageVersion']}"
            found.own.append(
                Resource(Kind.PACKAGE, one["ModelPackageArn"], status, one["CreationTime"], detail=version)
            )


def repositories(aws: Aws, found: Inventory) -> None:
    """Add those of the images of this project."""
    ecr = aws.client("ecr")
    for target in TARGETS:
        if item := registry.described(ecr, f"{found.project}-{target}"):
            tags = tag_map(ecr.list_tags_for_resource(resourceArn=item["repositoryArn"])["tags"])
            name, uri = item["repositoryName"], item["repositoryUri"]
            found.add(Resource(Kind.REPOSITORY, name, "", item.get("createdAt"), detail=uri), tags)


def _look(aws: Aws, found: Inventory, kind: Kind, items: Iterator[dict[str, Any]]) -> None:
    noun, project = NOUNS[kind], found.project

    def look(item: dict[str, Any]) -> tuple[Resource, dict[str, str]] | None:
        name = item[f"{noun}Name"]
        try:
            tags = tags_of(aws, item[f"{noun}Arn"])
            if PROJECT_TAG not in tags and not name.startswith(project):
                return None
            status, created = item.get(f"{noun}Status", ""), item.get("CreationTime")
            made = Resource(kind, name, status, created, endpoint=tags.get(ENDPOINT_TAG))
            return _detailed(aws, made, item), tags
        except ClientError as error:
            # Removed since it was listed, or another's, whose tags are not for us to see.
            if is_missing(error) or (is_denied(error) and not name.startswith(project)):
                return None
            raise

    for one in sorted(filter(None, gather(look, list(items), THREADS)), key=lambda one: one[0].name):
        found.add(*one)


def _detailed(aws: Aws, resource: Resource, item: Mapping[str, Any]) -> Resource:
    """The same with what it runs on and costs, and how far a search has come."""
    kind, count = None, 0
    if resource.kind == Kind.ENDPOINT:
        live = lookup.find(aws, resource.name)
        configuration = lookup.configuration(aws, live.configuration) if live else None
        if live and configuration:
            kind = configuration.instance_type
            count = (configuration.instance_count if live.instances is None else live.instances) + live.shadows
            resource = replace(resource, detail=configuration.runs_on)
    elif resource.kind in (Kind.JOB, Kind.WARM_POOL):
        job = training_jobs.describe(aws, resource.name)
        kind, count = job.instance_type, job.instance_count
        status = "kept" if resource.kind == Kind.WARM_POOL else job.secondary or job.status
        resource = replace(resource, status=status)
    elif resource.kind == Kind.TRANSFORM:
        runs_on = (describe(aws, NOUNS[Kind.TRANSFORM], resource.name) or {}).get("TransformResources", {})
        kind, count = runs_on.get("InstanceType"), runs_on.get("InstanceCount", 0)
    elif resource.kind == Kind.SEARCH:
        completed = item["TrainingJobStatusCounters"].get("Completed", 0)
        planned = item.get("ResourceLimits", {}).get("MaxNumberOfTrainingJobs", "?")
        return replace(resource, detail=f"{completed} of {planned} trials completed")
    if not kind:
        return resource
    hourly = instances.price(kind, aws.region).hourly
    usd = None if hourly is None else hourly * count
    return replace(resource, usd_per_hour=usd, detail=f"{count} x {kind}")
