"""Creating what exists once under its name. A lost answer is no failure: what is there is compared with the request."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain, is_passing, is_throttled
from scripts.aws.requests import Request, describe, send

_CONFIGURATION = "EndpointConfigName"


class UnansweredError(CloudError):
    """No answer came, and nothing shows that the request was performed: it may still be."""


def create(aws: Aws, request: Request) -> None:
    """Send a request of SageMaker that creates or updates something, and return once it has been accepted.

    botocore sends a request again whose answer was lost, and the service refuses the second one, since the first was
    performed. So whenever it was not the only try that was refused, the service is asked what it has. The caller makes
    sure before that the name is free (`description`).

    Raises ClientError where the service refused it, UnansweredError where nobody knows, CloudError for a request that
    is wrong in itself.
    """
    from botocore.parsers import ResponseParserError  # takes long, for which --help need not wait

    try:
        send(aws, request)
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        # A server error, or a proxy's page, does not say that nothing was done.
        refused = isinstance(error, ClientError) and (is_throttled(error) or not is_passing(error))
        if refused and not error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0):
            raise
        try:
            done = _is_done(aws, request)
        except (ClientError, BotoCoreError, ResponseParserError):
            raise UnansweredError(str(explain(error))) from error
        if done:
            return
        if refused:
            raise
        raise UnansweredError(str(explain(error))) from error


def description(aws: Aws, request: Request) -> dict[str, Any] | None:
    """Return what the service describes under the name in the request; None where there is nothing."""
    noun = request.operation.removeprefix("Create").removeprefix("Update")
    return describe(aws, noun, request.request[f"{noun}Name"])


def _is_done(aws: Aws, request: Request) -> bool:
    found = description(aws, request)
    if found is None:
        return False
    if request.operation.startswith("Update"):
        # An update is pending first, and complete some minutes later.
        pending = found.get("PendingDeploymentSummary", {})
        return request.request[_CONFIGURATION] in (found.get(_CONFIGURATION), pending.get(_CONFIGURATION))
    return _agrees(request.request, found)


def _agrees(wanted: Any, found: Any) -> bool:
    """Compare as far as the description goes: it lacks the tags, and has defaults that the request does not state."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(_agrees(value, found[key]) for key, value in wanted.items() if key in found)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_agrees, wanted, found))
    return bool(wanted == found)
