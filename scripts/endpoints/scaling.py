"""Autoscaling of an endpoint's instances: a target that is tracked, and for an asynchronous one the way to zero.

All of it is in Application Auto Scaling under the endpoint's name, and one alarm in CloudWatch.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
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


@dataclass(frozen=True)
class Scaling:
    """The bounds in instances; `target` as TARGET or BACKLOG."""

    endpoint: str
    least: int
    most: int
    target: float
    asynchronous: bool

    def requests(self, settings: Settings) -> list[Request]:
        """Return what registers it. The alarm, which only scaling from zero needs, is the last one."""
        where = variant(self.endpoint)
        target = Request(
            SERVICE, "RegisterScalableTarget", {**where, "MinCapacity": self.least, "MaxCapacity": self.most}
        )
        found = [target, Request(SERVICE, "PutScalingPolicy", {**where, **self._tracking()})]
        if self.least == 0:
            found += [Request(SERVICE, "PutScalingPolicy", {**where, **_STEP}), alarm(self.endpoint, settings)]
        return found

    def _tracking(self) -> dict[str, Any]:
        metric: dict[str, Any] = {
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        }
        if self.asynchronous:
            metric = {
                "CustomizedMetricSpecification": {
                    "MetricName": "ApproximateBacklogSizePerInstance",
                    "Namespace": "AWS/SageMaker",
                    "Dimensions": [{"Name": "EndpointName", "Value": self.endpoint}],
                    "Statistic": "Average",
                }
            }
        config = {"TargetValue": self.target, "ScaleOutCooldown": OUT_SECONDS, "ScaleInCooldown": IN_SECONDS, **metric}
        return {
            "PolicyName": TRACKING,
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": config,
        }


_UNDO = {"RegisterScalableTarget": "DeregisterScalableTarget", "PutScalingPolicy": "DeleteScalingPolicy"}
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


def from_flags(flags: argparse.Namespace, endpoint: str, mode: str) -> Scaling | None:
    """Return what --min-instances, --max-instances and --target ask for. Raises CloudError."""
    if flags.max_instances is None:
        if flags.min_instances is not None or flags.target is not None:
            raise CloudError("--min-instances and --target go with --max-instances", 2)
        return None
    asynchronous = mode == ASYNCHRONOUS
    least = flags.min_instances if flags.min_instances is not None else 0 if asynchronous else 1
    if least == 0 and not asynchronous:
        raise CloudError("--min-instances 0: only an endpoint with --async scales to zero; give 1 or more", 2)
    if least > flags.max_instances:
        raise CloudError(f"--min-instances {least} is more than --max-instances {flags.max_instances}", 2)
    if (flags.instance_count or 0) > flags.max_instances:
        raise CloudError(
            f"--instance-count {flags.instance_count} is more than --max-instances {flags.max_instances}", 2
        )
    target = flags.target or (BACKLOG if asynchronous else TARGET)
    return Scaling(endpoint, least, flags.max_instances, float(target), asynchronous)


def variant(endpoint: str) -> dict[str, str]:
    """Return the fields that name an endpoint's variant to Application Auto Scaling."""
    resource = f"endpoint/{endpoint}/variant/{VARIANT}"
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": DIMENSION}


def alarm(endpoint: str, settings: Settings) -> Request:
    """The alarm that calls the policy FROM_ZERO: requests wait, and there is no instance."""
    request = {
        "AlarmName": alarm_name(endpoint),
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


def alarm_name(endpoint: str) -> str:
    return f"{endpoint}-has-backlog"


def apply(aws: Aws, requests: Sequence[Request]) -> None:
    """Send them in order; the alarm gets the ARN of the policy before it."""
    arn = UNKNOWN_ARN
    for request in requests:
        content = request.request
        if content.get("AlarmActions"):
            content = {**content, "AlarmActions": [arn]}
        answer = send(aws, Request(request.service, request.operation, content))
        arn = answer.get("PolicyARN", arn)


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
    return found


def remove(aws: Aws, endpoint: str, settings: Settings | None = None) -> list[Request]:
    """Take the autoscaling away, if there is any; return the requests that register it again."""
    found = registered(aws, endpoint, settings or Settings())
    for request in reversed(found):
        if request.operation == "PutMetricAlarm":
            undo = Request("cloudwatch", "DeleteAlarms", {"AlarmNames": [alarm_name(endpoint)]})
        else:
            which = {key: request.request[key] for key in (*variant(endpoint), "PolicyName") if key in request.request}
            undo = Request(SERVICE, _UNDO[request.operation], which)
        send(aws, undo)
    return found
