"""Removing resources, the costing ones first, each until it is really gone."""

from collections.abc import Callable, Sequence

from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of, explain, is_denied, is_missing, message_of
from scripts.aws.requests import send
from scripts.console.command import Interrupted
from scripts.endpoints import lookup, scaling
from scripts.jobs.existing import is_stopped
from scripts.resources import usage
from scripts.resources.inventory import JOBS, Kind, Resource, removal

_GONE = {"RepositoryNotFoundException", "ResourceNotFound", "DashboardNotFoundError"}


def remove(aws: Aws, resources: Sequence[Resource], say: Callable[[str], None]) -> list[Resource]:
    """In the given order; endpoints are deleted together, and waited for before anything else goes.

    What anything uses by then stays: minutes have passed. Returns what was removed. Raises Interrupted for Ctrl-C,
    CloudError where an endpoint stays, botocore's errors where it cannot be seen what uses the rest.
    """
    live = [resource for resource in resources if resource.kind == Kind.ENDPOINT]
    left = list(resources)
    try:
        for resource in resources:
            if resource.kind in JOBS:
                _send(aws, resource, say, "stopping")
                left.remove(resource)
        waiting = [resource for resource in live if not _delete_endpoint(aws, resource, say)]
        for resource in waiting:
            # An endpoint in the middle of something cannot be deleted.
            say(f"{resource.name} is still {resource.status}: waiting until it can be deleted")
            lookup.wait(aws, resource.name, say)
            if not _delete_endpoint(aws, resource, say):
                raise CloudError(f"{resource.name} could not be deleted: call this again in some minutes")
        for resource in live:
            stays = lookup.wait(aws, resource.name, say)
            if stays is not None:
                why = stays.failure or "call this again"
                raise CloudError(f"{resource.name} is {stays.status} and was not deleted: {why}")
            say(f"deleted {resource}")
            left.remove(resource)
        kept = usage.kept(aws, left)
        for resource, user in kept.items():
            say(f"left: {resource}, which {user} uses")
        for resource in list(left):
            if resource not in kept:
                _send(aws, resource, say, "deleted")
                left.remove(resource)
        return [resource for resource in resources if resource not in kept]
    except KeyboardInterrupt:
        rest = ", ".join(map(str, left))
        raise Interrupted(f"interrupted; still to remove: {rest}; call the same again") from None


def _delete_endpoint(aws: Aws, resource: Resource, say: Callable[[str], None]) -> bool:
    """Tell whether it is being deleted, or no longer exists."""
    endpoint = lookup.find(aws, resource.name)
    if endpoint is None or endpoint.status == "Deleting":
        return True
    if endpoint.busy:
        return False
    try:
        if scaling.remove(aws, resource.name):
            say(f"deleted the autoscaling of {resource.name}")
    except ClientError as error:
        if not is_denied(error):
            raise
        say(f"whether {resource.name} has autoscaling cannot be seen: {explain(error)}")
    try:
        _send(aws, resource, say, "deleting")
    except ClientError as error:
        if code_of(error) == "ValidationException" and "in-progress" in message_of(error).lower():
            return False
        raise
    return True


def _send(aws: Aws, resource: Resource, say: Callable[[str], None], done: str) -> None:
    try:
        send(aws, removal(resource.kind, resource.name))
    except ClientError as error:
        # Removed by somebody else, or ended by itself, in the meantime.
        gone = is_missing(error) or code_of(error) in _GONE
        if not gone and not (resource.kind in JOBS and is_stopped(error)):
            raise
    say(f"{done} {resource}")
