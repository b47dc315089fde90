"""Sending a deployment's requests, seeing what comes of them, and taking back what is of no use."""

from collections.abc import Sequence
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import creation, names
from scripts.aws.account import Aws
from scripts.aws.creation import UnansweredError
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request
from scripts.console.command import Interrupted, progress
from scripts.endpoints import lookup
from scripts.endpoints.deployment import Deployment
from scripts.endpoints.lookup import LOG_GROUP, Configuration, Endpoint
from scripts.endpoints.model_data import s3_uri
from scripts.endpoints.modes import ASYNCHRONOUS, DATA_CAPTURE, INSTANCE_TYPE
from scripts.jobs import training_jobs
from scripts.resources import removal
from scripts.resources.inventory import NOUNS, ORDER, Kind, Resource


def send_all(aws: Aws, requests: Sequence[Request]) -> None:
    """All of them, or none: what was made before one was refused is removed again.

    The last one makes or changes the endpoint. Where its answer is lost, everything stays: it may be performed yet.
    """
    made: list[Request] = []
    try:
        for request in requests:
            made.append(request)
            creation.create(aws, request)
    except (KeyboardInterrupt, UnansweredError) as error:
        if made != [*requests]:
            undo(aws, made)
            raise
        name, stopped = requests[-1].request["EndpointName"], isinstance(error, KeyboardInterrupt)
        may = f"the endpoint {name} may be made or changed all the same, and cost money; {_ways(name, aws.region)}"
        raise Interrupted(f"interrupted: {may}") if stopped else CloudError(f"{error}; {may}") from None
    except (ClientError, CloudError):
        undo(aws, made[:-1])
        raise


def undo(aws: Aws, made: Sequence[Request]) -> None:
    """Remove what these requests have made, unless something uses it; says what it left, and how that is removed."""
    resources = [
        Resource(kind, request.request[f"{NOUNS[kind]}Name"], "in progress" if kind == Kind.ENDPOINT else "")
        for request in made
        for kind in (Kind.MODEL, Kind.CONFIGURATION, Kind.ENDPOINT)
        if request.operation == f"Create{NOUNS[kind]}"
    ]
    remove_unused(aws, resources)


def remove_unused(aws: Aws, resources: Sequence[Resource]) -> list[Resource]:
    """Remove an endpoint, then configurations, then models; return what has gone. Raises nothing but interrupts."""
    resources = sorted(resources, key=lambda resource: ORDER.index(resource.kind))
    try:
        return removal.remove(aws, resources, progress)
    except (ClientError, BotoCoreError, CloudError) as error:
        progress(f"not removed ({explain(error)}): {_later(resources)}")
        return []
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"interrupted; still to remove: {_later(resources)}") from None


def _later(resources: Sequence[Resource]) -> str:
    which = next((resource.name for resource in resources if resource.kind == Kind.ENDPOINT), "--unused")
    return f"{', '.join(map(str, resources))}; scripts/cleanup.py {which} does it later"


def need_free(aws: Aws, wanted: Deployment, requests: Sequence[Request]) -> None:
    """Raises CloudError where the endpoint, or a model or configuration of its name, is there already."""
    *parts, endpoint = requests
    live = creation.description(aws, endpoint)
    if live:
        other = f"give another --name, or remove it with scripts/cleanup.py {wanted.endpoint}"
        status = live["EndpointStatus"]
        raise CloudError(f"the endpoint {wanted.endpoint} already exists ({status}): change it with --update, {other}")
    if any(creation.description(aws, part) for part in parts):
        remedy = f"remove it with scripts/cleanup.py {wanted.endpoint}, or give another --name"
        raise CloudError(f"a model or configuration {wanted.name} is left from an endpoint of this name: {remedy}")


def need_updatable(aws: Aws, wanted: Deployment, project: str, instance_type: str | None) -> Configuration:
    """The configuration that it has now, with the number of instances that it is scaled to.

    Raises CloudError where it may not, or cannot now, be changed, or would silently come to another type of instance
    or another mode.
    """
    name = wanted.endpoint
    live = lookup.find(aws, name)
    if live is None:
        raise CloudError(f"there is no endpoint {name} in {aws.region} to update: leave out --update")
    lookup.need_own(aws, live, project)
    if live.busy:
        raise CloudError(f"{name} is {live.status}: wait for that first, scripts/deploy.py --attach {name}")
    if live.status != "InService":
        again = f"remove it with scripts/cleanup.py {name}, and deploy again without --update"
        raise CloudError(f"the endpoint {name} is {live.status} and cannot be updated: {again}")
    now = lookup.configuration(aws, live.configuration)
    if now is None:
        raise CloudError(f"the configuration {live.configuration} of {name} has been removed: deploy it again")
    if wanted.is_serverless and now.instance_type:
        raise CloudError(f"{name} runs on {now.runs_on}, which the service cannot make serverless: give another --name")
    if not wanted.is_serverless and not instance_type and now.instance_type != INSTANCE_TYPE:
        raise CloudError(f"{name} runs on {now.runs_on}: say with --instance-type what it shall run on", 2)
    if ASYNCHRONOUS in (now.mode, wanted.mode.name) and now.mode != wanted.mode.name:
        raise CloudError(f"{name} is {now.mode}: an update cannot make it {wanted.mode.name}; give another --name")
    for flag in now.extras:
        if not {"--capture": DATA_CAPTURE in wanted.mode.configuration, "--shadow": wanted.shadow}[flag]:
            progress(f"{name} was deployed with {flag}: this update without it ends that")
    return replace(now, instance_count=live.instances or now.instance_count)


def model_of(aws: Aws, name: str) -> S3Uri:
    """Return the address of the model that a training job has left. Raises CloudError unless it has completed."""
    job = training_jobs.describe(aws, name)
    if job.status != "Completed" or not job.artifact:
        raise CloudError(f"the training job {name} is {job.status}: only a completed one has a model to deploy")
    return s3_uri(job.artifact, "--job")


def wait_in_service(aws: Aws, name: str, wanted: str, requests: Sequence[Request] = ()) -> Endpoint:
    """Wait until it serves the configuration `wanted`, which `requests` have made.

    Raises CloudError where it comes to serve something else, or nothing, after removing what is then of no use; what
    continues is said of a broken connection and of Ctrl-C too.
    """
    try:
        endpoint = _settled(aws, name)
    except KeyboardInterrupt:
        raise goes_on(name, aws.region) from None
    if endpoint is None:
        undo(aws, requests[:-1])
        raise CloudError(f"the endpoint {name} has been removed")
    if endpoint.status == "InService" and endpoint.configuration == wanted:
        return endpoint
    why = f"{endpoint.failure or 'SageMaker gives no reason'}; its log: {LOG_GROUP.format(name)}"
    update = not requests or requests[-1].operation == "UpdateEndpoint"
    if update and endpoint.configuration == wanted:  # and so did the way back
        again = f"remove it with scripts/cleanup.py {name}, and deploy again"
        raise CloudError(f"the endpoint {name} is {endpoint.status} with {wanted}: {why}; {again}")
    undo(aws, requests)
    if not update:
        raise CloudError(f"the endpoint {name} is {endpoint.status}: {why}")
    back = "serves" if endpoint.status == "InService" else f"is {endpoint.status} with"
    left = "" if requests else "; scripts/cleanup.py --unused removes what it should have served"
    before = f"the configuration from before, {endpoint.configuration}"
    raise CloudError(f"the update failed, {name} {back} {before}: {why}{left}")


def attach(aws: Aws, name: str) -> Endpoint:
    """Wait for what is in progress. Raises CloudError where it has not led where it should."""
    endpoint = lookup.find(aws, name)
    if endpoint is None:
        raise CloudError(f"there is no endpoint {name} in {aws.region}: check the name and --region")
    return wait_in_service(aws, name, endpoint.pending or endpoint.configuration)


def _settled(aws: Aws, name: str) -> Endpoint | None:
    """The endpoint once nothing is in progress; the end of its log is shown where it has failed."""
    try:
        endpoint = lookup.wait(aws, name, progress)
    except (ClientError, BotoCoreError) as error:
        raise CloudError(f"{explain(error)}; {goes_on(name, aws.region)}") from None
    if endpoint is None or endpoint.failure or endpoint.status != "InService":
        for line in lookup.last_lines(aws, LOG_GROUP.format(name)):
            progress(f"  {line}")
    return endpoint


def prune(aws: Aws, before: Configuration, project: str) -> list[str]:
    """Remove a configuration that is served no more, and its models; the names of what was removed."""
    if training_jobs.tags_of(aws, before.arn).get(names.PROJECT_TAG) != project:
        progress(f"the configuration {before.name} was not made by these scripts: it is left")
        return []
    resources = [Resource(Kind.CONFIGURATION, before.name), *(Resource(Kind.MODEL, name) for name in before.models)]
    return [resource.name for resource in remove_unused(aws, resources)]


def goes_on(name: str, region: str) -> Interrupted:
    return Interrupted(f"the endpoint {name} stays and is billed; {_ways(name, region)}")


def _ways(name: str, region: str) -> str:
    which = f"{name} --region {region}"
    return f"wait for it again: scripts/deploy.py --attach {which}; remove it: scripts/cleanup.py {which}"
