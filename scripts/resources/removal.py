"""Removing things, the costing ones first, each until it is really gone."""

from collections.abc import Callable, Sequence

from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of, message_of
from scripts.aws.requests import send
from scripts.console.command import Interrupted
from scripts.endpoints import lookup
from scripts.jobs.training_jobs import is_missing, is_stopped
from scripts.resources import usage
from scripts.resources.inventory import ENDPOINT, JOB, SEARCH, Thing


def remove(aws: Aws, things: Sequence[Thing], say: Callable[[str], None]) -> list[Thing]:
    """In the given order; endpoints are deleted together, and waited for before anything else goes.

    Whatever anything uses by then stays: minutes have passed. Returns what was removed. Raises Interrupted for Ctrl-C,
    CloudError where an endpoint stays, botocore's errors where it cannot be seen what uses the rest.
    """
    live = [thing for thing in things if thing.kind == ENDPOINT]
    left = list(things)
    try:
        for thing in things:
            if thing.kind in (SEARCH, JOB):
                _send(aws, thing, say, "stopping")
                left.remove(thing)
        waiting = [thing for thing in live if not _delete_endpoint(aws, thing, say)]
        for thing in waiting:
            # An endpoint in the middle of something cannot be deleted.
            say(f"{thing.name} is still {thing.status}: waiting until it can be deleted")
            lookup.wait(aws, thing.name, say)
            if not _delete_endpoint(aws, thing, say):
                raise CloudError(f"{thing.name} could not be deleted: call this again in some minutes")
        for thing in live:
            stays = lookup.wait(aws, thing.name, say)
            if stays is not None:
                why = stays.failure or "call this again"
                raise CloudError(f"{thing.name} is {stays.status} and was not deleted: {why}")
            say(f"deleted {thing}")
            left.remove(thing)
        kept = usage.kept(aws, left)
        for thing, user in kept.items():
            say(f"left: {thing}, which {user} uses")
        for thing in list(left):
            if thing not in kept:
                _send(aws, thing, say, "deleted")
                left.remove(thing)
        return [thing for thing in things if thing not in kept]
    except KeyboardInterrupt:
        rest = ", ".join(map(str, left))
        raise Interrupted(f"interrupted; still to remove: {rest}; call the same again") from None


def _delete_endpoint(aws: Aws, thing: Thing, say: Callable[[str], None]) -> bool:
    """Whether it is being deleted, or gone."""
    endpoint = lookup.find(aws, thing.name)
    if endpoint is None or endpoint.status == "Deleting":
        return True
    if endpoint.busy:
        return False
    try:
        _send(aws, thing, say, "deleting")
    except ClientError as error:
        if code_of(error) == "ValidationException" and "in-progress" in message_of(error).lower():
            return False
        raise
    return True


def _send(aws: Aws, thing: Thing, say: Callable[[str], None], done: str) -> None:
    try:
        send(aws, thing.removal())
    except ClientError as error:
        # Removed by somebody else, or ended by itself, in the meantime.
        gone = is_missing(error) or code_of(error) == "RepositoryNotFoundException"
        if not gone and not (thing.kind in (SEARCH, JOB) and is_stopped(error)):
            raise
    say(f"{done} {thing}")
