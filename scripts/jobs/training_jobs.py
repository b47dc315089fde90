"""Training jobs: what is asked for, as data and as a request; and those that there are, found and stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from container_train.training.metrics import DEFINITIONS
from scripts.aws import instances, names, requests
from scripts.aws.account import Aws
from scripts.aws.requests import Request

WEIGHTS = "weights"  # the channel that is one file, read at once: never streamed
IN_PROGRESS = frozenset({"InProgress", "Stopping", "Deleting"})
STOP_SECONDS = 120  # from SIGTERM to SIGKILL
# Local mode has no role; the SDK's Estimator wants one, in this form.
NO_ROLE = "arn:aws:iam::000000000000:role/local"
MAX_RUN = 24 * 3600  # seconds, the default
SPOT_PATIENCE = 24 * 3600  # seconds beyond the run itself that a spot job may wait for its instances, by default
MAX_KEEP_ALIVE = 3600  # seconds that a warm pool keeps the instances of a job that has ended


@dataclass(frozen=True)
class TrainingJobSpec:
    """A job to be made. URIs are s3://, and file:// for local mode."""

    name: str
    image: str
    role: str
    region: str
    channels: Mapping[str, str]
    hyperparameters: Mapping[str, str]
    output: str
    instance_type: str
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    instance_count: int = 1
    volume_size: int = 30  # GB
    max_run: int = MAX_RUN
    max_wait: int | None = None  # seconds; given for spot instances only
    keep_alive: int | None = None  # seconds that its instances are kept for the next job
    checkpoints: str | None = None
    input_mode: str = "File"
    isolated: bool = False
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    output_kms_key: str | None = None
    volume_kms_key: str | None = None
    service_debugger: bool = False


def training_request(spec: TrainingJobSpec) -> dict[str, Any]:
    """CreateTrainingJob as the SDK's Estimator would build it, without the SDK: a test holds both equal."""
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


@dataclass(frozen=True)
class Job:
    """A job as the service describes it. `artifact` is the URI of model.tar.gz, once there is one."""

    name: str
    region: str
    status: str
    secondary: str
    image: str
    artifact: str | None
    failure: str | None
    instance_type: str
    instance_count: int
    spot: bool
    billable_seconds: int | None
    training_seconds: int | None
    metrics: Mapping[str, float]
    transitions: Sequence[Mapping[str, Any]]  # SecondaryStatusTransitions
    warm_pool: bool = False  # its instances are kept, and billed

    @property
    def in_progress(self) -> bool:
        return self.status in IN_PROGRESS

    @property
    def lacks_capacity(self) -> bool:
        """Tell whether the service had no instances of this type, and the job never began."""
        return self.status == "Failed" and (self.failure or "").startswith("CapacityError")

    @property
    def cost(self) -> float | None:
        """USD, None where seconds or price are not known. A spot job's discount is in its billable seconds."""
        if self.billable_seconds is None:
            return None
        price = instances.price(self.instance_type, self.region)
        return price.cost(self.billable_seconds, self.instance_count)

    @property
    def saved(self) -> float | None:
        """The share that spot instances saved, as the service defines it."""
        if not self.spot or not self.training_seconds or self.billable_seconds is None:
            return None
        return 1 - self.billable_seconds / self.training_seconds


def described(aws: Aws, name: str) -> dict[str, Any]:
    """DescribeTrainingJob. Raises CloudError where there is no such job."""
    return requests.need(aws, "TrainingJob", name, "training job")


def describe(aws: Aws, name: str) -> Job:
    """Raises CloudError where there is no such job."""
    found = described(aws, name)
    resources = found.get("ResourceConfig", {})
    return Job(
        name=found["TrainingJobName"],
        region=aws.region,
        status=found["TrainingJobStatus"],
        secondary=found.get("SecondaryStatus", ""),
        image=found.get("AlgorithmSpecification", {}).get("TrainingImage", ""),
        artifact=found.get("ModelArtifacts", {}).get("S3ModelArtifacts"),
        failure=found.get("FailureReason"),
        instance_type=resources.get("InstanceType", ""),
        instance_count=resources.get("InstanceCount", 1),
        spot=found.get("EnableManagedSpotTraining", False),
        billable_seconds=found.get("BillableTimeInSeconds"),
        training_seconds=found.get("TrainingTimeInSeconds"),
        metrics={metric["MetricName"]: metric["Value"] for metric in found.get("FinalMetricDataList", ())},
        transitions=found.get("SecondaryStatusTransitions", ()),
        warm_pool=has_warm_pool(found),
    )


def has_warm_pool(job: Mapping[str, Any]) -> bool:
    """Tell of a description or summary whether the instances of a job that has ended are kept."""
    return bool(job.get("WarmPoolStatus", {}).get("Status") == "Available")


def release(name: str) -> Request:
    """Return the request that gives back the instances that a warm pool keeps."""
    return Request(
        "sagemaker", "UpdateTrainingJob", {"TrainingJobName": name, "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}
    )


def tags_of(aws: Aws, arn: str) -> dict[str, str]:
    """The tags of any resource in SageMaker."""
    pages = aws.client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def console(region: str, name: str, kind: str = "jobs") -> str:
    """The job's page in the browser."""
    domain = "console.amazonaws.cn" if region.startswith("cn-") else "console.aws.amazon.com"
    return f"https://{region}.{domain}/sagemaker/home?region={region}#/{kind}/{name}"
