"""The ways to run an endpoint: what each adds to the requests of a real-time one, and what it excludes."""

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
    _check(flags, chosen)
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
            raise CloudError(
                f"--provisioned {flags.provisioned} is more than --max-concurrency {config['MaxConcurrency']}", 2
            )
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
    S3Uri.parse(flags.multi_model, "--multi-model")
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
_FLAGS = {"asynchronous": "--async"}  # whose name differs from the attribute's
_ONE = "an endpoint has one mode"
_NO_SHADOW = "the service has no shadow variants there"
# What a mode cannot be combined with, and why.
_REFUSED: dict[str, dict[str, str]] = {
    "serverless": {
        "asynchronous multi_model": _ONE,
        "instance_type instance_count": "it has no instances; its size is MEMORY_MB",
        "min_instances max_instances target": "it scales by itself, up to --max-concurrency",
        "network_isolation": "the service has no network isolation there",
        "startup_timeout download_timeout": "the service always gives it 180 s to get ready",
        "capture": "the service captures no data there",
        "shadow": _NO_SHADOW,
    },
    "asynchronous": {"multi_model": _ONE, "shadow": _NO_SHADOW},
    "multi_model": {
        "model_data job model_package": "its models are below the prefix; --add puts one there",
        "shadow": _NO_SHADOW,
    },
}
# The modes, or other flags, that a flag is for.
_ONLY_FOR = {
    "provisioned": ("serverless",),
    "max_concurrency": ("serverless", "asynchronous"),
    "success_topic": ("asynchronous",),
    "error_topic": ("asynchronous",),
    "add": ("multi_model",),
    "remove": ("multi_model",),
    "capture_to": ("capture",),
    "shadow": ("image",),
    "alarm_topic": ("alarms",),
}


def _check(flags: argparse.Namespace, chosen: Settings) -> None:
    """Raises CloudError for flags that the mode cannot be combined with."""
    for mode, refused in _REFUSED.items():
        for others, why in refused.items() if getattr(flags, mode) else ():
            if other := next((other for other in others.split() if getattr(flags, other)), None):
                raise CloudError(f"{_flag(mode)} cannot be combined with {_flag(other)}: {why}", 2)
    for name, modes in _ONLY_FOR.items():
        if getattr(flags, name) and not any(getattr(flags, mode) for mode in modes):
            raise CloudError(f"{_flag(name)} goes with {' or '.join(map(_flag, modes))}", 2)
    if flags.serverless and chosen.subnets:
        raise CloudError(
            "--serverless cannot be combined with --subnets: the service has no VPC there (they may come from byoc.toml"
            " or BYOC_SUBNETS)",
            2,
        )
    if flags.shadow and flags.strategy == "rolling":
        raise CloudError("--shadow cannot be combined with --strategy rolling: the service takes one variant there", 2)
    if flags.serverless and flags.strategy != "all-at-once":
        why = "it has no instances to replace"
        raise CloudError(f"--serverless cannot be combined with --strategy {flags.strategy}: {why}", 2)


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
