"""The request that creates a training job, as the SageMaker SDK's Estimator would build it, without the SDK.

The SDK takes seconds to import, needs an environment of gigabytes, and its version 2 ends in July 2027. A test holds
both equal.
"""

from typing import Any

from container_train.training.metrics import DEFINITIONS
from scripts.aws import names
from scripts.jobs.training_jobs import TrainingJobSpec

WEIGHTS = "weights"  # the channel that is one file, read at once: never streamed


def training_request(spec: TrainingJobSpec) -> dict[str, Any]:
    """CreateTrainingJob."""
    return {
        "TrainingJobName": spec.name,
        "HyperParameters": dict(spec.hyperparameters),
        "ResourceConfig": resources(spec),
        "Tags": names.tag_list(spec.tags),
        "ProfilerConfig": {"DisableProfiler": True},
        **definition(spec),
    }


def definition(spec: TrainingJobSpec) -> dict[str, Any]:
    """Return the part that a tuning job's request has too."""
    request: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": spec.image,
            "TrainingInputMode": spec.input_mode,
            "MetricDefinitions": DEFINITIONS,
        },
        "RoleArn": spec.role,
        "InputDataConfig": [_channel(name, uri) for name, uri in spec.channels.items()],
        "OutputDataConfig": {"S3OutputPath": spec.output},
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_run},
        "Environment": dict(spec.environment),
    }
    if spec.output_kms_key:
        request["OutputDataConfig"]["KmsKeyId"] = spec.output_kms_key
    if spec.max_wait is not None:
        request["EnableManagedSpotTraining"] = True
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = spec.max_wait
    if spec.checkpoints:
        request["CheckpointConfig"] = {"S3Uri": spec.checkpoints}
    if spec.isolated:
        request["EnableNetworkIsolation"] = True
    if spec.subnets:
        request["VpcConfig"] = {"Subnets": list(spec.subnets), "SecurityGroupIds": list(spec.security_groups)}
    return request


def resources(spec: TrainingJobSpec) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "InstanceType": spec.instance_type,
        "InstanceCount": spec.instance_count,
        "VolumeSizeInGB": spec.volume_size,
    }
    if spec.volume_kms_key:
        resources["VolumeKmsKeyId"] = spec.volume_kms_key
    if spec.keep_alive:
        resources["KeepAlivePeriodInSeconds"] = spec.keep_alive
    return resources


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    channel: dict[str, Any] = {"ChannelName": name, "DataSource": {"S3DataSource": source}}
    return channel | ({"InputMode": "File"} if name == WEIGHTS else {})
