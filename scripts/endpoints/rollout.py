"""Sending a deployment's requests, seeing what comes of them, and taking back what is of no use."""

from collections.abc import Sequence
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import creation, names
from scripts.aws.account import Aws
from scripts.aws.creation import UnansweredError
from scripts.aws.errors import CloudError, explain
from scripts.aws.requests import Request
from scripts.console.command import Interrupted, progress
from scripts.endpoints import lookup
from scripts.endpoints.deployment import Deployment
from scripts.endpoints.lookup import LOG_GROUP, Configuration, Endpoint
from scripts.resources import removal
from scripts.resources.inventory import CONFIGURATION, ENDPOINT, MODEL, Thing

# What each of these makes, and the key that names it.
_MADE = {
    "CreateModel": (MODEL, "ModelName"),
    "CreateEndpointConfig": (CONFIGURATION, "EndpointConfigName"),
    "CreateEndpoint": (ENDPOINT, "EndpointName"),
}


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
        name = requests[-1].request["EndpointName"]
        raise _perhaps(name, aws.region, error) from None
    except (ClientError, CloudError):
        undo(aws, made[:-1])
        raise


def undo(aws: Aws, made: Sequence[Request]) -> None:
    """Remove what these requests have made, unless something uses it; says what it left, and how that is removed."""
    things = []
    for request in made:
        if request.operation in _MADE:
            kind, key = _MADE[request.operation]
            things.append(Thing(kind, request.request[key], "in progress" if kind == ENDPOINT else ""))
    remove_unused(aws, things)


def remove_unused(aws: Aws, things: Sequence[Thing]) -> list[Thing]:
    """Remove an endpoint, then configurations, then models; return what has gone. Raises nothing but interrupts."""
    order = [ENDPOINT, CONFIGURATION, MODEL]
    things = sorted(things, key=lambda thing: order.index(thing.kind))
    try:
        return removal.remove(aws, things, progress)
    except (ClientError, BotoCoreError, CloudError) as error:
        progress(f"not removed ({explain(error)}): {_later(things)}")
        return []
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"interrupted; still to remove: {_later(things)}") from None


def _later(things: Sequence[Thing]) -> str:
    which = next((thing.name for thing in things if thing.kind == ENDPOINT), "--unused")
    return f"{', '.join(map(str, things))}; scripts/cleanup.py {which} does it later"


def need_free(aws: Aws, wanted: Deployment, requests: Sequence[Request]) -> None:
    """Raises CloudError where the endpoint, or a model or configuration of its name, is there already."""
    *parts, endpoint = requests
    live = creation.description(aws, endpoint)
    if live:
        raise CloudError(
            f"there is an endpoint {wanted.endpoint} already ({live['EndpointStatus']}): change it with --update, give"
            f" another --name, or remove it with scripts/cleanup.py {wanted.endpoint}"
        )
    if any(creation.description(aws, part) for part in parts):
        raise CloudError(
            f"a model or configuration {wanted.name} is left from an endpoint of this name: remove it with"
            f" scripts/cleanup.py {wanted.endpoint}, or give another --name"
        )


def need_updatable(aws: Aws, name: str, project: str) -> Configuration:
    """The configuration that it has now, with the number of instances that it is scaled to.

    Raises CloudError where it may not, or cannot now, be changed.
    """
    live = lookup.find(aws, name)
    if live is None:
        raise CloudError(f"there is no endpoint {name} in {aws.region} to update: leave out --update")
    lookup.need_own(aws, live, project)
    if live.busy:
        raise CloudError(
            f"the endpoint {name} is {live.status}: wait for that first, scripts/deploy.py --attach {name}"
        )
    if live.status != "InService":
        raise CloudError(
            f"the endpoint {name} is {live.status} and cannot be updated: remove it with scripts/cleanup.py {name}, and"
            " deploy again without --update"
        )
    now = lookup.configuration(aws, live.configuration)
    if now is None:
        raise CloudError(f"the configuration {live.configuration} of {name} has been removed: deploy it anew")
    return replace(now, instance_count=live.instances or now.instance_count)


def settle(aws: Aws, wanted: Deployment, requests: Sequence[Request], *, update: bool) -> Endpoint:
    """Wait until it serves what was asked for.

    Raises CloudError where it comes to serve something else, or nothing, after removing what is then of no use; what
    goes on is said of a broken connection too.
    """
    try:
        endpoint = lookup.wait(aws, wanted.endpoint, progress)
    except (ClientError, BotoCoreError) as error:
        raise CloudError(f"{explain(error)}; {goes_on(wanted.endpoint, aws.region)}") from None
    if endpoint and endpoint.status == "InService" and endpoint.configuration == wanted.name:
        return endpoint
    show_log(aws, wanted.endpoint)
    if endpoint is None:
        undo(aws, requests[:2])
        raise CloudError(f"the endpoint {wanted.endpoint} was removed meanwhile")
    why = f"{endpoint.failure or 'SageMaker gives no reason'}; its log: {LOG_GROUP.format(wanted.endpoint)}"
    if not update:
        undo(aws, requests)
        raise CloudError(f"the endpoint {wanted.endpoint} is {endpoint.status}: {why}")
    if endpoint.configuration == wanted.name:
        raise CloudError(
            f"the update failed, and so did the way back: {wanted.endpoint} is {endpoint.status} with {wanted.name}:"
            f" {why}; remove it with scripts/cleanup.py {wanted.endpoint}, and deploy again"
        )
    undo(aws, requests)
    back = "serves" if endpoint.status == "InService" else f"is {endpoint.status} with"
    raise CloudError(
        f"the update failed, {wanted.endpoint} {back} the configuration from before, {endpoint.configuration}: {why}"
    )


def attach(aws: Aws, name: str) -> Endpoint:
    """Wait for what is in progress. Raises CloudError where it has not led where it should."""
    endpoint = lookup.find(aws, name)
    if endpoint is None:
        raise CloudError(f"there is no endpoint {name} in {aws.region}: check the name and --region")
    wanted = endpoint.pending or endpoint.configuration
    try:
        endpoint = lookup.wait(aws, name, progress)
    except KeyboardInterrupt:
        raise goes_on(name, aws.region) from None
    if endpoint is None:
        raise CloudError(f"the endpoint {name} has been removed")
    if endpoint.status == "InService" and endpoint.configuration == wanted:
        return endpoint
    show_log(aws, name)
    reason = endpoint.failure or "SageMaker gives no reason"
    if endpoint.status == "InService":
        raise CloudError(
            f"the update failed, {name} serves the configuration from before, {endpoint.configuration}: {reason};"
            " scripts/cleanup.py --unused removes what it should have served"
        )
    raise CloudError(f"the endpoint {name} is {endpoint.status}: {reason}; remove it with scripts/cleanup.py {name}")


def prune(aws: Aws, before: Configuration, project: str) -> list[str]:
    """Remove a configuration that is served no more, and its models; the names of what was removed."""
    if lookup.tags(aws, before.arn).get(names.PROJECT_TAG) != project:
        progress(f"the configuration {before.name} was not made by these scripts: it is left")
        return []
    things = [Thing(CONFIGURATION, before.name), *(Thing(MODEL, name) for name in before.models)]
    return [thing.name for thing in remove_unused(aws, things)]


def show_log(aws: Aws, name: str) -> None:
    for line in lookup.log_tail(aws, name):
        progress(f"  {line}")


def goes_on(name: str, region: str) -> Interrupted:
    return Interrupted(f"the endpoint {name} goes on, and costs money; {_ways(name, region)}")


def _ways(name: str, region: str) -> str:
    return (
        f"take up again: scripts/deploy.py --attach {name} --region {region}; remove it: scripts/cleanup.py {name}"
        f" --region {region}"
    )


def _perhaps(name: str, region: str, error: BaseException) -> Exception:
    """No answer came to the request that makes or changes the endpoint."""
    may = f"the endpoint {name} may be made or changed all the same, and cost money; {_ways(name, region)}"
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"interrupted: {may}")
    return CloudError(f"{error}; {may}")
