"""Resources of this project in an account, and those that only look like them: known by the tag byoc-project."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from scripts.aws import instances
from scripts.aws.account import Aws
from scripts.aws.errors import is_denied, is_missing
from scripts.aws.names import PROJECT_TAG
from scripts.aws.parallel import each
from scripts.aws.requests import Request, describe
from scripts.endpoints import lookup
from scripts.endpoints.deployment import ENDPOINT_TAG
from scripts.jobs import training_jobs
from scripts.jobs.training_jobs import tags_of

ENDPOINT, CONFIGURATION, MODEL = "endpoint", "configuration", "model"
SEARCH, JOB, TRANSFORM, REPOSITORY = "tuning job", "training job", "transform job", "repository"
ALARM, DASHBOARD = "alarm", "dashboard"
PACKAGE, GROUP = "model package", "model package group"  # a package's name is its ARN
WARM_POOL = "warm pool"  # the instances that an ended training job keeps, under its name
JOBS = (SEARCH, JOB, TRANSFORM, WARM_POOL)  # which end by themselves, and are stopped, not deleted
NOUNS = {
    ENDPOINT: "Endpoint",
    CONFIGURATION: "EndpointConfig",
    MODEL: "Model",
    SEARCH: "HyperParameterTuningJob",
    JOB: "TrainingJob",
    TRANSFORM: "TransformJob",
    WARM_POOL: "TrainingJob",
    PACKAGE: "ModelPackage",
    GROUP: "ModelPackageGroup",
}  # in the names of SageMaker's operations
RUNNING = ("InProgress", "Stopping")
TARGETS = ("train", "serve", "serve-torch")  # of scripts/push.sh
THREADS = 8  # ListTags is throttled early


@dataclass(frozen=True)
class Resource:
    """`own`: it has the project's tag."""

    kind: str
    name: str
    status: str = ""
    created: datetime | None = None
    usd_per_hour: float | None = None  # None: nothing, or not known
    own: bool = True
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
    """`unmanaged` have a name like this project's, and no tag of these scripts."""

    own: list[Resource] = field(default_factory=list)
    unmanaged: list[Resource] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Resource]:
        return [resource for resource in self.own if resource.kind in kinds]

    def add(self, resources: Sequence[Resource]) -> None:
        self.own += [resource for resource in resources if resource.own]
        self.unmanaged += [resource for resource in resources if not resource.own]

    def of_endpoint(self, name: str) -> list[Resource]:
        """The endpoint, and what was made for it."""
        return [one for one in self.own if (one.kind == ENDPOINT and one.name == name) or one.endpoint == name]


def removal(kind: str, name: str) -> Request:
    """The request that removes it; of a job or a search, stops it."""
    if kind == REPOSITORY:
        return Request("ecr", "DeleteRepository", {"repositoryName": name, "force": True})
    if kind in (ALARM, DASHBOARD):
        noun = f"{kind.capitalize()}s"
        return Request("cloudwatch", f"Delete{noun}", {f"{noun[:-1]}Names": [name]})
    if kind == WARM_POOL:
        return training_jobs.release(name)
    verb = "Stop" if kind in JOBS else "Delete"
    return Request("sagemaker", f"{verb}{NOUNS[kind]}", {f"{NOUNS[kind]}Name": name})


def listed(aws: Aws, noun: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    """The summaries of all resources of SageMaker with this noun."""
    for page in aws.client("sagemaker").get_paginator(f"list_{xform_name(noun)}s").paginate(**parameters):
        yield from next((value for value in page.values() if isinstance(value, list)), ())


def serving(aws: Aws, project: str, found: Inventory) -> None:
    """Add endpoints, configurations and models.

    Endpoints may bear any name, and cost: all of the account are looked at. The others' names begin with the project.
    """
    _look(aws, found, project, ENDPOINT, listed(aws, NOUNS[ENDPOINT]))
    for kind in (CONFIGURATION, MODEL):
        _look(aws, found, project, kind, listed(aws, NOUNS[kind], NameContains=project))


def watching(aws: Aws, project: str, found: Inventory) -> None:
    """Add CloudWatch's alarms and dashboards, whose names begin with the project."""
    client = aws.client("cloudwatch")
    for kind, operation, prefix, items, name, arn in (
        (ALARM, "describe_alarms", "AlarmNamePrefix", "MetricAlarms", "AlarmName", "AlarmArn"),
        (DASHBOARD, "list_dashboards", "DashboardNamePrefix", "DashboardEntries", "DashboardName", "DashboardArn"),
    ):
        for page in client.get_paginator(operation).paginate(**{prefix: project}):
            for item in page[items]:
                tags = client.list_tags_for_resource(ResourceARN=item[arn])["Tags"]
                known = {tag["Key"]: tag["Value"] for tag in tags}
                made = Resource(kind, item[name], item.get("StateValue", ""), endpoint=known.get(ENDPOINT_TAG))
                judged = _judged(made, known, project)
                found.add([judged] if judged else [])


def training(aws: Aws, project: str, found: Inventory) -> None:
    """Add jobs in progress, and what ended ones keep; a tuning job's trials are training jobs, too."""
    for kind in (SEARCH, JOB, TRANSFORM):
        for status in RUNNING:
            _look(aws, found, project, kind, listed(aws, NOUNS[kind], StatusEquals=status))
    kept = filter(training_jobs.has_warm_pool, listed(aws, NOUNS[WARM_POOL], WarmPoolStatusEquals="Available"))
    _look(aws, found, project, WARM_POOL, kept)


def packages(aws: Aws, project: str, found: Inventory) -> None:
    """Add groups of the model registry, and the versions in them, which have the tags of their group."""
    _look(aws, found, project, GROUP, listed(aws, NOUNS[GROUP], NameContains=project))
    for group in found.of(GROUP):
        found.add(
            [
                Resource(
                    PACKAGE,
                    one["ModelPackageArn"],
                    one.get("ModelApprovalStatus", ""),
                    one["CreationTime"],
                    detail=f"{group.name}:{one['ModelPackageVersion']}",
                )
                for one in listed(aws, NOUNS[PACKAGE], ModelPackageGroupName=group.name)
            ]
        )


def repositories(aws: Aws, project: str, found: Inventory) -> None:
    """Add those of the images of this project."""
    ecr = aws.client("ecr")
    for target in TARGETS:
        try:
            items = ecr.describe_repositories(repositoryNames=[f"{project}-{target}"])["repositories"]
        except ecr.exceptions.RepositoryNotFoundException:
            continue
        for item in items:
            tags = {
                tag["Key"]: tag["Value"]
                for tag in ecr.list_tags_for_resource(resourceArn=item["repositoryArn"])["tags"]
            }
            made = Resource(REPOSITORY, item["repositoryName"], "", item.get("createdAt"), detail=item["repositoryUri"])
            judged = _judged(made, tags, project)
            found.add([judged] if judged else [])


def _look(aws: Aws, found: Inventory, project: str, kind: str, items: Iterator[dict[str, Any]]) -> None:
    noun = NOUNS[kind]

    def look(item: dict[str, Any]) -> Resource | None:
        name = item[f"{noun}Name"]
        try:
            tags = tags_of(aws, item[f"{noun}Arn"])
            if PROJECT_TAG not in tags and not name.startswith(project):
                return None
            status, created = item.get(f"{noun}Status", ""), item.get("CreationTime")
            made = Resource(kind, name, status, created, endpoint=tags.get(ENDPOINT_TAG))
            return _judged(_detailed(aws, made, item), tags, project)
        except ClientError as error:
            # Removed since it was listed, or another's, whose tags are not for us to see.
            if is_missing(error) or (is_denied(error) and not name.startswith(project)):
                return None
            raise

    resources: list[Resource] = []
    each(look, list(items), lambda _, one: resources.append(one) if one else None, THREADS)
    found.add(sorted(resources, key=lambda one: one.name))


def _judged(resource: Resource, tags: Mapping[str, str], project: str) -> Resource | None:
    """None where it is another project's, or nothing to do with any."""
    owner = tags.get(PROJECT_TAG)
    if owner == project:
        return resource
    return replace(resource, own=False) if owner is None and resource.name.startswith(project) else None


def _detailed(aws: Aws, resource: Resource, item: Mapping[str, Any]) -> Resource:
    """The same with what it runs on and costs, and how far a search has come."""
    kind, count = None, 0
    if resource.kind == ENDPOINT:
        live = lookup.find(aws, resource.name)
        configuration = lookup.configuration(aws, live.configuration) if live else None
        if live and configuration:
            kind = configuration.instance_type
            count = (configuration.instance_count if live.instances is None else live.instances) + live.shadows
            resource = replace(resource, detail=configuration.runs_on)
    elif resource.kind in (JOB, WARM_POOL):
        job = training_jobs.describe(aws, resource.name, with_tags=False)
        kind, count = job.instance_type, job.instance_count
        status = "kept" if resource.kind == WARM_POOL else job.secondary or job.status
        resource = replace(resource, status=status)
    elif resource.kind == TRANSFORM:
        runs_on = (describe(aws, NOUNS[TRANSFORM], resource.name) or {}).get("TransformResources", {})
        kind, count = runs_on.get("InstanceType"), runs_on.get("InstanceCount", 0)
    elif resource.kind == SEARCH:
        completed = item["TrainingJobStatusCounters"].get("Completed", 0)
        planned = item.get("ResourceLimits", {}).get("MaxNumberOfTrainingJobs", "?")
        return replace(resource, detail=f"{completed} of {planned} trials completed")
    if not kind:
        return resource
    hourly = instances.price(kind, aws.region).hourly
    usd = None if hourly is None else hourly * count
    return replace(resource, usd_per_hour=usd, detail=f"{count} x {kind}")
