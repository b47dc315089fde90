"""The SageMaker Python SDK, version 2: imported here and nowhere else, since its end is set for July 2027.

Its telemetry is off, and what it logs on import and of defaults it does not apply is left out.
"""

import logging
import os
from typing import Any

import boto3

# Read when the package is imported.
os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
logging.getLogger("sagemaker.config").setLevel(logging.WARNING)

from sagemaker.session import Session

CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


class Recorder(Session):  # type: ignore[misc]
    """A session that keeps what it would send (`requests`) and sends nothing; it needs no credentials."""

    def __init__(self, boto_session: boto3.Session, bucket: str) -> None:
        self.requests: list[dict[str, Any]] = []
        super().__init__(boto_session=boto_session, default_bucket=bucket, sagemaker_config=CONFIG)

    def _intercept_create_request(self, request: dict[str, Any], create: Any, func_name: str | None = None) -> None:
        self.requests.append(request)
