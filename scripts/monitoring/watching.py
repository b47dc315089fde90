"""--alarms and --dashboard of deploy.py: made once the endpoint serves, for an update before it."""

import argparse
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.monitoring import alarms, dashboard


def from_flags(
    flags: argparse.Namespace, endpoint: str, mode: str, region: str, chosen: Settings, *, shadow: bool = False
) -> list[Request]:
    found = alarms.requests(endpoint, mode, flags.alarms, flags.alarm_topic, chosen) if flags.alarms else []
    return [*found, *([dashboard.request(endpoint, mode, region, chosen, shadow=shadow)] if flags.dashboard else [])]


def apply(aws: Aws, endpoint: str, requests: Sequence[Request]) -> None:
    """Send them; the same again changes nothing. Raises CloudError, which says how it is done later."""
    try:
        for request in requests:
            send(aws, request)
    except (ClientError, BotoCoreError) as error:
        again = f"scripts/deploy.py --attach {endpoint} --alarms --dashboard --region {aws.region}"
        raise CloudError(f"{explain(error)}; without its alarms or dashboard, make them later: {again}") from None
    if made := alarms.of(requests):
        progress(f"alarms: {', '.join(made)}")
    if len(made) < len(requests):
        name = dashboard.name(endpoint, aws.region)
        place = f"https://{aws.region}.console.aws.amazon.com/cloudwatch/home?region={aws.region}#dashboards/dashboard"
        progress(f"dashboard: {place}/{name}")
