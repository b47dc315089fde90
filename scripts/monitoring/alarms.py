"""CloudWatch alarms of an endpoint: failures, slow answers, a full disk. Its updates are rolled back by them."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints.deployment import ENDPOINT_TAG, VARIANT
from scripts.endpoints.modes import ASYNCHRONOUS, SERVERLESS

INVOCATIONS, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"  # namespaces of the metrics
LATENCY_MS = 1000  # p90, by default: seven times what the server itself needs for a large photo (docs/benchmarks.md)
PERIOD = 60  # seconds, as often as the service reports
MINUTES, BREACHING = 5, 3  # it fires if this many of the last minutes are over the threshold


@dataclass(frozen=True)
class Alarm:
    """`threshold` in the metric's own unit; `not_for`: the modes without this metric, or without a limit for it."""

    metric: str
    namespace: str
    statistic: dict[str, str]
    threshold: float
    text: str
    not_for: tuple[str, ...] = ()


# The average of an error metric is the share of the requests that failed; latencies are in microseconds.
ALARMS = {
    "5xx": Alarm("Invocation5XXErrors", INVOCATIONS, {"Statistic": "Average"}, 0.01, "over 1 % of requests fail"),
    "latency": Alarm(
        "ModelLatency", INVOCATIONS, {"ExtendedStatistic": "p90"}, 1000.0 * LATENCY_MS, "p90 is over {} ms",
        (ASYNCHRONOUS,),
    ),
    "disk": Alarm(
        "DiskUtilization", INSTANCES, {"Statistic": "Maximum"}, 80.0, "over 80 % of a disk is full", (SERVERLESS,)
    ),
}  # fmt: skip


def requests(endpoint: str, mode: str, latency_ms: int, topic: str | None, settings: Settings) -> list[Request]:
    """Return PutMetricAlarm for each alarm of this mode. `topic`: ARN of the SNS topic that is told."""
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": VARIANT}]
    return [
        Request(
            "cloudwatch",
            "PutMetricAlarm",
            {
                "AlarmName": f"{endpoint}-{key}",
                "AlarmDescription": f"{endpoint}: {alarm.text.format(latency_ms)}",
                "AlarmActions": [topic] if topic else [],
                "Namespace": alarm.namespace,
                "MetricName": alarm.metric,
                "Dimensions": dimensions,
                **alarm.statistic,
                "Period": PERIOD,
                "EvaluationPeriods": MINUTES,
                "DatapointsToAlarm": BREACHING,
                "Threshold": 1000.0 * latency_ms if key == "latency" else alarm.threshold,
                "ComparisonOperator": "GreaterThanThreshold",
                "TreatMissingData": "notBreaching",
                "Tags": names.tag_list({**settings.all_tags(), ENDPOINT_TAG: endpoint}),
            },
        )
        for key, alarm in ALARMS.items()
        if mode not in alarm.not_for
    ]


def guards(aws: Aws, endpoint: str) -> list[str]:
    """Return the names of the endpoint's own alarms that can guard an update.

    One that is firing already cannot: the update, which may be what mends it, would be rolled back at once.
    """
    known = [f"{endpoint}-{key}" for key in ALARMS]
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=known)["MetricAlarms"]
    firing = [one["AlarmName"] for one in found if one["StateValue"] == "ALARM"]
    if firing:
        progress(f"{', '.join(firing)} is firing already, and so cannot guard this update")
    return [one["AlarmName"] for one in found if one["AlarmName"] not in firing]


def of(requested: Sequence[Request]) -> list[str]:
    """Return the names of the alarms that these requests make."""
    return [one.request["AlarmName"] for one in requested if one.operation == "PutMetricAlarm"]
