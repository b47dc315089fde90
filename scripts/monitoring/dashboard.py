"""A CloudWatch dashboard of one endpoint, as one PutDashboard."""

import json
from typing import Any, NamedTuple

from scripts.aws import names
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.endpoints.deployment import ENDPOINT_TAG, SHADOW, VARIANT
from scripts.endpoints.modes import ASYNCHRONOUS, MULTI_MODEL, REAL_TIME, SERVERLESS
from scripts.monitoring.alarms import INSTANCES, INVOCATIONS, PERIOD

WIDTH, HEIGHT, COLUMNS = 8, 6, 3  # of a widget, in a grid that is 24 wide
WITH_INSTANCES = (REAL_TIME, ASYNCHRONOUS, MULTI_MODEL)
ALL = (*WITH_INSTANCES, SERVERLESS)


class Widget(NamedTuple):
    """A chart: its metrics with their statistics, and the modes that have them."""

    title: str
    namespace: str
    metrics: dict[str, tuple[str, ...]]
    modes: tuple[str, ...] = ALL


WIDGETS = (
    Widget("Requests per minute", INVOCATIONS, {"Invocations": ("Sum",)}),
    Widget("Latency in the container, microseconds", INVOCATIONS, {"ModelLatency": ("p50", "p90", "p99")}),
    Widget("Latency added by the service, microseconds", INVOCATIONS, {"OverheadLatency": ("p50", "p90")}),
    Widget("Failed requests", INVOCATIONS, {"Invocation4XXErrors": ("Sum",), "Invocation5XXErrors": ("Sum",)}),
    Widget("Memory, %", INSTANCES, {"MemoryUtilization": ("Average", "Maximum")}),
    Widget("CPU, % of one core", INSTANCES, {"CPUUtilization": ("Average", "Maximum")}, WITH_INSTANCES),
    Widget("Disk, %", INSTANCES, {"DiskUtilization": ("Maximum",)}, WITH_INSTANCES),
    # No metric has their number: each instance reports its CPU once a minute.
    Widget("Instances", INSTANCES, {"CPUUtilization": ("SampleCount",)}, WITH_INSTANCES),
)


def request(endpoint: str, mode: str, region: str, settings: Settings, *, shadow: bool) -> Request:
    """Return PutDashboard. Dashboards are global: the region is in the name, and in each widget."""
    variants = (VARIANT, SHADOW) if shadow else (VARIANT,)
    shown = [widget for widget in WIDGETS if mode in widget.modes]
    body = {"widgets": [_drawn(widget, index, endpoint, variants, region) for index, widget in enumerate(shown)]}
    tags = {**settings.all_tags(), ENDPOINT_TAG: endpoint}
    content = {"DashboardName": name(endpoint, region), "DashboardBody": json.dumps(body)}
    return Request("cloudwatch", "PutDashboard", {**content, "Tags": names.tag_list(tags)})


def name(endpoint: str, region: str) -> str:
    return f"{endpoint}-{region}"


def _drawn(widget: Widget, index: int, endpoint: str, variants: tuple[str, ...], region: str) -> dict[str, Any]:
    row, column = divmod(index, COLUMNS)
    metrics = [
        [
            widget.namespace, metric, "EndpointName", endpoint, "VariantName", variant,
            {"stat": statistic, "label": " ".join((metric, statistic, *([variant] if len(variants) > 1 else [])))},
        ]
        for variant in variants
        for metric, statistics in widget.metrics.items()
        for statistic in statistics
    ]  # fmt: skip
    properties = {"title": widget.title, "region": region, "view": "timeSeries", "period": PERIOD, "metrics": metrics}
    place = {"x": column * WIDTH, "y": row * HEIGHT, "width": WIDTH, "height": HEIGHT}
    return {"type": "metric", **place, "properties": {**properties, "yAxis": {"left": {"min": 0}}}}
