"""The account: clients of its services, and who is calling. AWS_ENDPOINT_URL leads elsewhere, as in AWS's own tools."""

import functools
import threading
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

# Throttled and broken calls are tried again with growing pauses, some 20 s in all.
CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 8},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
    user_agent_extra="byoc-image-classifier",
)


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]


class Aws:
    """Clients are made when first asked for, and may be used by several threads."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.session = boto3.Session(region_name=region)
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self.session.client(service, config=CONFIG)
            return self._clients[service]

    @functools.cached_property
    def identity(self) -> Identity:
        answer = self.client("sts").get_caller_identity()
        return Identity(answer["Account"], answer["Arn"])
