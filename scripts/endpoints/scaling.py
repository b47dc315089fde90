"""Autoscaling of an endpoint's instances: a target that is tracked, bounds that change by a schedule, and for an
asynchronous endpoint the way to zero.

All of it is in Application Auto Scaling under the endpoint's name, and one alarm in CloudWatch.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints import schedule
from scripts.endpoints.deployment import VARIANT
from scripts.endpoints.modes import ASYNCHRONOUS

SERVICE, NAMESPACE = "application-autoscaling", "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
TRACKING, FROM_ZERO = "byoc-target", "byoc-from-zero"  # the policies
# Requests per instance and minute: a quarter of what two cores answer (docs/benchmarks.md, 145 per second).
TARGET = 2000
BACKLOG = 5  # requests that wait per instance of an asynchronous endpoint: the value of the developer guide's example
OUT_SECONDS, IN_SECONDS = 300, 600  # until the next change after adding, after removing
# The answer of PutScalingPolicy has the policy's ARN, which the alarm needs; --dry-run has none.
UNKNOWN_ARN = "the PolicyARN in the answer to PutScalingPolicy"


_UNDO = {
    "RegisterScalableTarget": "DeregisterScalableTarget",
    "PutScalingPolicy": "DeleteScalingPolicy",
    "PutScheduledAction": "DeleteScheduledAction",
}
# Target tracking starts from zero only when more requests wait than the target; this one with the first that waits.
_STEP = {
    "PolicyName": FROM_ZERO,
    "PolicyType": "StepScaling",
    "StepScalingPolicyConfiguration": {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": OUT_SECONDS,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    },
}


def from_flags(flags: argparse.Namespace, endpoint: str, mode: str, settings: Settings) -> list[Request]:
    """Return what registers the autoscaling that is asked for; nothing without. Raises CloudError.

    The alarm, which only scaling from zero needs, is the last one.
    """
    if flags.max_instances is None:
        return []
    asynchronous = mode == ASYNCHRONOUS
    least = flags.min_instances if flags.min_instances is not None else 0 if asynchronous else 1
    schedules = schedule.parse(flags.schedule, flags.timezone)
    for words, most, low, high in (
        (f"--min-instances {least}", "--max-instances", least, flags.max_instances),
        *((f"--schedule '{one.when}': MIN {one.least}", "MAX", one.least, one.most) for one in schedules),
    ):
        if low == 0 and not asynchronous:
            raise CloudError(f"{words}: only an endpoint with --async scales to zero; give 1 or more", 2)
        if low > high:
            raise CloudError(f"{words} is more than {most} {high}", 2)
    if (flags.instance_count or 0) > flags.max_instances:
        count = flags.instance_count
        raise CloudError(f"--instance-count {count} is more than --max-instances {flags.max_instances}", 2)
    where = variant(endpoint)
    target = {**where, "MinCapacity": least, "MaxCapacity": flags.max_instances}
    found = [Request(SERVICE, "RegisterScalableTarget", target)]
    found.append(Request(SERVICE, "PutScalingPolicy", {**where, **_tracking(endpoint, flags.target, asynchronous)}))
    for number, one in enumerate(schedules, 1):
        found.append(Request(SERVICE, "PutScheduledAction", {**where, **one.action(number)}))
    if 0 in (least, *(one.least for one in schedules)):
        found += [Request(SERVICE, "PutScalingPolicy", {**where, **_STEP}), alarm(endpoint, settings)]
    return found


def _tracking(endpoint: str, target: int | None, asynchronous: bool) -> dict[str, Any]:
    metric: dict[str, Any] = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    }
    if asynchronous:
        metric = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
                "Statistic": "Average",
            }
        }
    value = float(target or (BACKLOG if asynchronous else TARGET))
    config = {"TargetValue": value, "ScaleOutCooldown": OUT_SECONDS, "ScaleInCooldown": IN_SECONDS, **metric}
    return {
        "PolicyName": TRACKING,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": config,
    }


def variant(endpoint: str) -> dict[str, str]:
    """Return the fields that name an endpoint's variant to Application Auto Scaling."""
    resource = f"endpoint/{endpoint}/variant/{VARIANT}"
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": DIMENSION}


def alarm(endpoint: str, settings: Settings) -> Request:
    """The alarm that calls the policy FROM_ZERO: requests wait, and there is no instance."""
    request = {
        "AlarmName": f"{endpoint}-has-backlog",
        "AlarmDescription": f"Starts the first instance of {endpoint}",
        "AlarmActions": [UNKNOWN_ARN],
        "MetricName": "HasBacklogWithoutCapacity",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "Tags": names.tag_list(settings.all_tags()),
    }
    return Request("cloudwatch", "PutMetricAlarm", request)


def apply(aws: Aws, requests: Sequence[Request]) -> None:
    """Send them in order; the alarm gets the ARN of the policy before it. New schedules replace all old ones."""
    arn = UNKNOWN_ARN
    new = [one.request["ScheduledActionName"] for one in requests if one.operation == "PutScheduledAction"]
    for old in _scheduled(aws, requests[0].request["ResourceId"]) if new else ():
        if old.request["ScheduledActionName"] not in new:
            send(aws, _undo(old))
    for request in requests:
        content = request.request
        if content.get("AlarmActions"):
            content = {**content, "AlarmActions": [arn]}
        answer = send(aws, Request(request.service, request.operation, content))
        arn = answer.get("PolicyARN", arn)


def merged(scaled: Sequence[Request], known: Sequence[Request]) -> list[Request]:
    """Return what is registered once `scaled` was: schedules that are known stay, unless there are new ones."""
    schedules = [one for one in known if one.operation == "PutScheduledAction"]
    new = any(one.operation == "PutScheduledAction" for one in scaled)
    return [*scaled, *(() if new else schedules)] if scaled else [*known]


def register(aws: Aws, requests: Sequence[Request], *, asked: bool) -> None:
    """Apply them, and say what is registered. Raises CloudError where that was `asked` for and failed."""
    if not requests:
        return
    try:
        apply(aws, requests)
    except (ClientError, BotoCoreError) as error:
        again = "scripts/deploy.py --attach NAME --max-instances N registers it"
        complaint = f"{explain(error)}; the endpoint has no autoscaling: {again}"
        if asked:
            raise CloudError(complaint) from None
        progress(complaint)  # an update may have failed, too
    else:
        least, most = requests[0].request["MinCapacity"], requests[0].request["MaxCapacity"]
        count = sum(one.operation == "PutScheduledAction" for one in requests)
        progress(f"autoscaling from {least} to {most} instances{f', with schedules: {count}' if count else ''}")


def registered(aws: Aws, endpoint: str, settings: Settings) -> list[Request]:
    """Return the requests that would register again what is registered now; empty without autoscaling."""
    where = variant(endpoint)
    client = aws.client(SERVICE)
    targets = client.describe_scalable_targets(
        ServiceNamespace=NAMESPACE, ResourceIds=[where["ResourceId"]], ScalableDimension=DIMENSION
    )["ScalableTargets"]
    found = []
    for target in targets:
        bounds = {key: target[key] for key in ("MinCapacity", "MaxCapacity")}
        found.append(Request(SERVICE, "RegisterScalableTarget", {**where, **bounds}))
        for policy in client.describe_scaling_policies(**where)["ScalingPolicies"]:
            content = {key: value for key, value in policy.items() if key.startswith("Policy") and key != "PolicyARN"}
            kind = f"{policy['PolicyType']}PolicyConfiguration"
            found.append(Request(SERVICE, "PutScalingPolicy", {**where, **content, kind: policy[kind]}))
            if policy["PolicyName"] == FROM_ZERO:
                found.append(alarm(endpoint, settings))
    return [*found, *_scheduled(aws, where["ResourceId"])]


def _scheduled(aws: Aws, resource: str) -> list[Request]:
    """The requests that would make again the scheduled actions that there are."""
    pages = aws.client(SERVICE).get_paginator("describe_scheduled_actions")
    kept = pages.paginate(ServiceNamespace=NAMESPACE, ResourceId=resource, ScalableDimension=DIMENSION)
    left_out = ("ScheduledActionARN", "CreationTime")
    return [
        Request(SERVICE, "PutScheduledAction", {key: value for key, value in one.items() if key not in left_out})
        for page in kept
        for one in page["ScheduledActions"]
    ]


def bounds(requests: Sequence[Request]) -> tuple[int, int] | None:
    """Return the fewest and the most instances that these requests allow at any time; None without autoscaling."""
    found = [one.request.get("ScalableTargetAction", one.request) for one in requests]
    found = [one for one in found if "MaxCapacity" in one]
    return (min(one["MinCapacity"] for one in found), max(one["MaxCapacity"] for one in found)) if found else None


def remove(aws: Aws, endpoint: str, settings: Settings | None = None) -> list[Request]:
    """Take the autoscaling away, if there is any; return the requests that register it again."""
    found = registered(aws, endpoint, settings or Settings())
    for request in reversed(found):
        send(aws, _undo(request))
    return found


def _undo(request: Request) -> Request:
    if request.operation == "PutMetricAlarm":
        return Request("cloudwatch", "DeleteAlarms", {"AlarmNames": [request.request["AlarmName"]]})
    keys = ("ServiceNamespace", "ResourceId", "ScalableDimension", "PolicyName", "ScheduledActionName")
    which = {key: request.request[key] for key in keys if key in request.request}
    return Request(SERVICE, _UNDO[request.operation], which)
