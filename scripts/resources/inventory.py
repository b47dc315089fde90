"""What this project has in an account, and what only looks like it: known by the tag byoc-project."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from scripts.aws import instances
from scripts.aws.account import Aws
from scripts.aws.errors import is_denied
from scripts.aws.names import PROJECT_TAG
from scripts.aws.parallel import each
from scripts.aws.requests import Request
from scripts.endpoints import lookup
from scripts.endpoints.deployment import ENDPOINT_TAG
from scripts.jobs import training_jobs
from scripts.jobs.training_jobs import is_missing

ENDPOINT, CONFIGURATION, MODEL = "endpoint", "configuration", "model"
SEARCH, JOB, REPOSITORY = "tuning job", "training job", "repository"
TARGETS = ("train", "serve", "serve-torch")  # of scripts/push.sh
THREADS = 8  # ListTags is throttled early
# The request that removes a thing, by the key that names it; of a job or a search, stops it.
REMOVAL = {
    ENDPOINT: ("sagemaker", "DeleteEndpoint", "EndpointName"),
    CONFIGURATION: ("sagemaker", "DeleteEndpointConfig", "EndpointConfigName"),
    MODEL: ("sagemaker", "DeleteModel", "ModelName"),
    SEARCH: ("sagemaker", "StopHyperParameterTuningJob", "HyperParameterTuningJobName"),
    JOB: ("sagemaker", "StopTrainingJob", "TrainingJobName"),
    REPOSITORY: ("ecr", "DeleteRepository", "repositoryName"),
}


@dataclass(frozen=True)
class Thing:
    """`own`: it bears the project's tag."""

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

    def removal(self) -> Request:
        return removal(self.kind, self.name)

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
    """`foreign` bear a name like this project's, and no tag of these scripts."""

    own: list[Thing] = field(default_factory=list)
    foreign: list[Thing] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Thing]:
        return [thing for thing in self.own if thing.kind in kinds]

    def add(self, things: Sequence[Thing]) -> None:
        self.own += [thing for thing in things if thing.own]
        self.foreign += [thing for thing in things if not thing.own]

    def of_endpoint(self, name: str) -> list[Thing]:
        """The endpoint, and what was made for it."""
        return [
            thing for thing in self.own if (thing.kind == ENDPOINT and thing.name == name) or thing.endpoint == name
        ]


def removal(kind: str, name: str) -> Request:
    service, operation, key = REMOVAL[kind]
    return Request(service, operation, {key: name} | ({"force": True} if kind == REPOSITORY else {}))


def serving(aws: Aws, project: str) -> Inventory:
    """Endpoints, configurations and models.

    Endpoints may bear any name, and cost: all of the account are looked at. The others' names begin with the project.
    """
    found = Inventory()
    client = aws.client("sagemaker")
    pages = client.get_paginator("list_endpoints").paginate()
    _look(aws, found, project, (item for page in pages for item in page["Endpoints"]), _endpoint)
    pages = client.get_paginator("list_endpoint_configs").paginate(NameContains=project)
    _look(aws, found, project, (item for page in pages for item in page["EndpointConfigs"]), _configuration)
    pages = client.get_paginator("list_models").paginate(NameContains=project)
    _look(aws, found, project, (item for page in pages for item in page["Models"]), _model)
    return found


def training(aws: Aws, project: str) -> Inventory:
    """Tuning jobs and training jobs in progress; a tuning job's trials are training jobs, too."""
    found = Inventory()
    paginator = aws.client("sagemaker").get_paginator("list_hyper_parameter_tuning_jobs")
    for status in ("InProgress", "Stopping"):
        pages = paginator.paginate(StatusEquals=status)
        items = (item for page in pages for item in page["HyperParameterTuningJobSummaries"])
        _look(aws, found, project, items, _search)
    paginator = aws.client("sagemaker").get_paginator("list_training_jobs")
    for status in ("InProgress", "Stopping"):
        pages = paginator.paginate(StatusEquals=status)
        _look(aws, found, project, (item for page in pages for item in page["TrainingJobSummaries"]), _job)
    return found


def repositories(aws: Aws, project: str) -> Inventory:
    """Those of the images of this project."""
    found = Inventory()
    ecr = aws.client("ecr")
    for target in TARGETS:
        try:
            items = ecr.describe_repositories(repositoryNames=[f"{project}-{target}"])["repositories"]
        except ecr.exceptions.RepositoryNotFoundException:
            continue
        for item in items:
            listed = ecr.list_tags_for_resource(resourceArn=item["repositoryArn"])["tags"]
            thing = Thing(REPOSITORY, item["repositoryName"], "", item.get("createdAt"), detail=item["repositoryUri"])
            judged = _judged(thing, {tag["Key"]: tag["Value"] for tag in listed}, project)
            found.add([judged] if judged else [])
    return found


def _look(
    aws: Aws,
    found: Inventory,
    project: str,
    items: Iterator[dict[str, Any]],
    make: Callable[[Aws, dict[str, Any], Mapping[str, str]], Thing],
) -> None:
    def look(item: dict[str, Any]) -> Thing | None:
        arn = next(value for key, value in item.items() if key.endswith("Arn"))
        name = next(value for key, value in item.items() if key.endswith("Name"))
        try:
            tags = lookup.tags(aws, arn)
            if PROJECT_TAG not in tags and not name.startswith(project):
                return None
            return _judged(make(aws, item, tags), tags, project)
        except ClientError as error:
            # Removed since it was listed, or another's, whose tags are not for us to see.
            if is_missing(error) or (is_denied(error) and not name.startswith(project)):
                return None
            raise

    _each(look, list(items), found)


def _judged(thing: Thing, tags: Mapping[str, str], project: str) -> Thing | None:
    """None where it is another project's, or nothing to do with any."""
    owner = tags.get(PROJECT_TAG)
    if owner == project:
        return thing
    return replace(thing, own=False) if owner is None and thing.name.startswith(project) else None


def _each(look: Callable[[Any], Thing | None], items: Sequence[Any], found: Inventory) -> None:
    things: list[Thing] = []
    each(look, items, lambda _, thing: things.append(thing) if thing else None, THREADS)
    found.add(sorted(things, key=lambda thing: thing.name))


def _endpoint(aws: Aws, item: dict[str, Any], _: Mapping[str, str]) -> Thing:
    name = item["EndpointName"]
    live = lookup.find(aws, name)
    configuration = lookup.configuration(aws, live.configuration) if live else None
    kind, count = (configuration.instance_type, configuration.instance_count) if configuration else (None, 0)
    return Thing(
        ENDPOINT,
        name,
        item["EndpointStatus"],
        item.get("CreationTime"),
        _usd(kind, count, aws.region),
        detail=f"{count} x {kind}" if kind else "",
    )


def _configuration(_: Aws, item: dict[str, Any], tags: Mapping[str, str]) -> Thing:
    created, endpoint = item.get("CreationTime"), tags.get(ENDPOINT_TAG)
    return Thing(CONFIGURATION, item["EndpointConfigName"], created=created, endpoint=endpoint)


def _search(_: Aws, item: dict[str, Any], __: Mapping[str, str]) -> Thing:
    counters = item["TrainingJobStatusCounters"]
    planned = item.get("ResourceLimits", {}).get("MaxNumberOfTrainingJobs")
    return Thing(
        SEARCH,
        item["HyperParameterTuningJobName"],
        item["HyperParameterTuningJobStatus"],
        item.get("CreationTime"),
        detail=f"{counters.get('Completed', 0)} of {planned or '?'} trials completed",
    )


def _job(aws: Aws, item: dict[str, Any], _: Mapping[str, str]) -> Thing:
    job = training_jobs.describe(aws, item["TrainingJobName"], with_tags=False)
    return Thing(
        JOB,
        job.name,
        job.secondary or job.status,
        item.get("CreationTime"),
        _usd(job.instance_type, job.instance_count, aws.region),
        detail=f"{job.instance_count} x {job.instance_type}",
    )


def _model(_: Aws, item: dict[str, Any], tags: Mapping[str, str]) -> Thing:
    return Thing(MODEL, item["ModelName"], created=item.get("CreationTime"), endpoint=tags.get(ENDPOINT_TAG))


def _usd(instance_type: str | None, count: int, region: str) -> float | None:
    hourly = instances.price(instance_type, region).hourly if instance_type else None
    return None if hourly is None else hourly * count
