"""Endpoints that there are: their status, their configuration, their log, whose they are."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import PROJECT_TAG
from scripts.aws.polling import ENDPOINT_SECONDS, poll
from scripts.aws.requests import describe
from scripts.endpoints.modes import ASYNCHRONOUS, REAL_TIME, SERVERLESS
from scripts.jobs.training_jobs import tags_of

LOG_GROUP = "/aws/sagemaker/Endpoints/{}"
LOG_LINES = 15
BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


@dataclass(frozen=True)
class Endpoint:
    """A live endpoint; `pending` is the configuration that an update in progress leads to.

    `instances`: as many as it is scaled to now, not as its configuration began with; None where that is not known.
    `shadows`: those of a shadow variant.
    """

    name: str
    arn: str
    status: str
    configuration: str
    failure: str | None
    pending: str | None
    instances: int | None = None
    shadows: int = 0

    @property
    def busy(self) -> bool:
        return self.status in BUSY


def find(aws: Aws, name: str) -> Endpoint | None:
    found = describe(aws, "Endpoint", name)
    if found is None:
        return None
    variants = found.get("ProductionVariants", ())
    counts = [variant["DesiredInstanceCount"] for variant in variants if "DesiredInstanceCount" in variant]
    shadows = sum(variant.get("DesiredInstanceCount", 0) for variant in found.get("ShadowProductionVariants", ()))
    return Endpoint(
        name=found["EndpointName"],
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        configuration=found.get("EndpointConfigName", ""),
        failure=found.get("FailureReason"),
        pending=found.get("PendingDeploymentSummary", {}).get("EndpointConfigName"),
        instances=sum(counts) if counts else None,
        shadows=shadows,
    )


def wait(aws: Aws, name: str, say: Callable[[str], None]) -> Endpoint | None:
    """Until nothing is in progress any more; None once it has been deleted.

    `say` gets a line for each new status and every half minute. Throttling and a network that is down are waited for
    as well, for a while.
    """
    begun = said = time.monotonic()
    status = ""

    def is_over(endpoint: Endpoint | None) -> bool:
        nonlocal status, said
        now = time.monotonic()
        if endpoint and (endpoint.status != status or now - said >= 30):
            status, said = endpoint.status, now
            seconds = int(now - begun)
            say(f"{name}: {status}, {seconds // 60}:{seconds % 60:02} min")
        return endpoint is None or not endpoint.busy

    return poll(lambda: find(aws, name), is_over, seconds=ENDPOINT_SECONDS, answered=True)


def last_lines(aws: Aws, group: str, prefix: str = "") -> list[str]:
    """The last lines of the newest stream in a log group, or of the last by name of those that begin with `prefix`.

    Empty where they cannot be read.
    """
    logs = aws.client("logs")
    # The service sorts by time only without a prefix.
    which: dict[str, Any] = {"logStreamNamePrefix": prefix} if prefix else {"orderBy": "LastEventTime"}
    try:
        streams = logs.describe_log_streams(logGroupName=group, descending=True, limit=1, **which)
        if not streams["logStreams"]:
            return []
        stream = streams["logStreams"][0]["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False)[
            "events"
        ]
    except (ClientError, BotoCoreError):
        return []
    return [str(event["message"]).rstrip() for event in events]


def need_own(aws: Aws, endpoint: Endpoint, project: str) -> None:
    """Raises CloudError for an endpoint that this project did not make."""
    if tags_of(aws, endpoint.arn).get(PROJECT_TAG) != project:
        raise CloudError(f"{endpoint.name} has no tag {PROJECT_TAG}={project}: these scripts did not make it")


@dataclass(frozen=True)
class Configuration:
    """An endpoint configuration: its models, and what it runs on.

    `instance_type` is None for a serverless one, and A,B for one with instance pools. `mode` does not tell of several
    models, which the model says. `extras`: the flags of deploy.py that it was made with, and that an update without
    them ends.
    """

    name: str
    arn: str
    models: tuple[str, ...]
    instance_type: str | None
    instance_count: int
    mode: str
    extras: tuple[str, ...] = ()

    @property
    def runs_on(self) -> str:
        return f"{self.instance_count} x {self.instance_type}" if self.instance_type else self.mode


def configuration(aws: Aws, name: str) -> Configuration | None:
    found = describe(aws, "EndpointConfig", name)
    if found is None:
        return None
    variants = found["ProductionVariants"]
    shadows = found.get("ShadowProductionVariants", [])
    captures = found.get("DataCaptureConfig", {}).get("EnableCapture")
    mode = ASYNCHRONOUS if found.get("AsyncInferenceConfig") else REAL_TIME
    pools = ",".join(pool["InstanceType"] for pool in variants[0].get("InstancePools", ()))
    return Configuration(
        name=name,
        arn=found["EndpointConfigArn"],
        models=tuple(variant["ModelName"] for variant in [*variants, *shadows] if "ModelName" in variant),
        instance_type=variants[0].get("InstanceType") or pools or None,
        instance_count=sum(variant.get("InitialInstanceCount", 0) for variant in variants),
        mode=SERVERLESS if "ServerlessConfig" in variants[0] else mode,
        extras=(*(["--capture"] if captures else []), *(["--shadow"] if shadows else [])),
    )
