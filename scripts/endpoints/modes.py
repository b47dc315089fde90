"""The ways to run an endpoint: what each adds to the requests of a real-time one."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.aws import instances
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings

REAL_TIME, SERVERLESS, ASYNCHRONOUS, MULTI_MODEL = "real-time", "serverless", "asynchronous", "multi-model"
INSTANCE_TYPE = "ml.m5.large"  # by default
MEMORY_SIZES = range(1024, 6144 + 1, 1024)  # MB, of a serverless endpoint
MAX_CONCURRENCY = 5  # of a serverless endpoint by default; all of a region share the account's quota
SERVERLESS_REQUEST_BYTES = 4_000_000  # the service's limit is "4 MB"
ASYNC_REQUEST_BYTES = 2**30  # the service's limit for an object
ASYNC_SECONDS = 3600  # the service's limit for an answer
DATA_CAPTURE = "DataCaptureConfig"
CAPTURED = "captured"  # below the project's prefix in S3: requests and answers, by default
BODY_COPIES = 3  # of a body at the same time, in the server's front end and in a worker

# USD per second and GB of memory. From tables of public repositories; each figure is in at least two of them.
SERVERLESS_GB_SECOND = 0.00002
REQUEST_SECONDS = 0.0138  # of one core, for an image of 500x375: two cores answer 145 per second (docs/benchmarks.md)


@dataclass(frozen=True)
class Mode:
    """The fields that a mode adds to the variant, the endpoint configuration and the container of a deployment.

    The variant of a serverless endpoint has them in place of instances. `environment`: for the server, unless
    --environment says otherwise.
    """

    name: str = REAL_TIME
    variant: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def of(flags: argparse.Namespace, chosen: Settings) -> Mode:
    """Return the mode that the flags of deploy.py ask for. Raises CloudError."""
    mode = next((build(flags, chosen) for flag, build in _BUILDERS.items() if getattr(flags, flag)), Mode())
    if flags.capture:
        mode = replace(mode, configuration={**mode.configuration, DATA_CAPTURE: _capture(flags, chosen)})
    return mode


def cost(memory: int, provisioned: int | None) -> str:
    """Return what a serverless endpoint with `memory` MB costs, in one line."""
    second = memory / 1024 * SERVERLESS_GB_SECOND
    line = f"serverless with {memory} MB: about {second:.5f} USD per second of computing, nothing when idle"
    if provisioned:
        line = f"{line}; {provisioned} provisioned instances are billed even when idle"
    return f"{line} ({instances.PRICE_PAGE})"


def request_bytes(instance_type: str) -> int:
    """Return the size of a body of which the memory of an instance holds all copies with half of it to spare."""
    memory = min(map(memory_gib, instances.kinds(instance_type)))
    return min(ASYNC_REQUEST_BYTES, memory * 2**30 // 2 // BODY_COPIES)


def memory_gib(instance_type: str) -> int:
    """Return the memory of an instance of a family c, m or r (2, 4 or 8 GiB per vCPU); otherwise 4, the smallest."""
    per_cpu = {"c": 2, "m": 4, "r": 8}.get(instances.family(instance_type)[:1], 0)
    return max(4, per_cpu * cpus(instance_type))


def cpus(instance_type: str) -> int:
    """Return the vCPUs by the size: 2 for large, 4 for xlarge and for each of Nxlarge; otherwise 1."""
    size = instance_type.rpartition(".")[2]
    times = size.removesuffix("xlarge")
    return {"large": 2, "xlarge": 4}.get(size) or (4 * int(times) if times.isdecimal() else 1)


def _serverless(flags: argparse.Namespace, _: Settings) -> Mode:
    config = {"MemorySizeInMB": flags.serverless, "MaxConcurrency": flags.max_concurrency or MAX_CONCURRENCY}
    if flags.provisioned:
        if flags.provisioned > config["MaxConcurrency"]:
            most = config["MaxConcurrency"]
            raise CloudError(f"--provisioned {flags.provisioned} is more than --max-concurrency {most}", 2)
        config["ProvisionedConcurrency"] = flags.provisioned
    return Mode(SERVERLESS, variant={"ServerlessConfig": config})


def _asynchronous(flags: argparse.Namespace, chosen: Settings) -> Mode:
    answers = S3Uri.parse(flags.asynchronous, "--async")
    output: dict[str, Any] = {"S3OutputPath": str(answers), "S3FailurePath": str(answers / "failures")}
    if chosen.output_kms_key:
        output["KmsKeyId"] = chosen.output_kms_key
    topics = {"SuccessTopic": flags.success_topic, "ErrorTopic": flags.error_topic}
    if found := {key: topic for key, topic in topics.items() if topic}:
        output["NotificationConfig"] = found
    config: dict[str, Any] = {"OutputConfig": output}
    if flags.max_concurrency:
        config["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": flags.max_concurrency}
    environment = {
        "SAGEMAKER_MAX_REQUEST_SIZE": str(request_bytes(flags.instance_type or INSTANCE_TYPE)),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": str(ASYNC_SECONDS - 5),  # an answer before the service gives up
    }
    return Mode(ASYNCHRONOUS, configuration={"AsyncInferenceConfig": config}, environment=environment)


def _multi_model(flags: argparse.Namespace, _: Settings) -> Mode:
    return Mode(MULTI_MODEL, container={"Mode": "MultiModel", "MultiModelConfig": {"ModelCacheSetting": "Enabled"}})


def _capture(flags: argparse.Namespace, chosen: Settings) -> dict[str, Any]:
    """DataCaptureConfig: requests and answers. The service adds ENDPOINT/VARIANT/YEAR/MONTH/DAY/HOUR to the prefix."""
    place = S3Uri.parse(flags.capture_to, "--capture-to") if flags.capture_to else chosen.home() / CAPTURED
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": flags.capture,
        "DestinationS3Uri": str(place),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # As text, that is; any other content type comes in base64.
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        **({"KmsKeyId": chosen.output_kms_key} if chosen.output_kms_key else {}),
    }


_BUILDERS: dict[str, Callable[[argparse.Namespace, Settings], Mode]] = {
    "serverless": _serverless,
    "asynchronous": _asynchronous,
    "multi_model": _multi_model,
}
