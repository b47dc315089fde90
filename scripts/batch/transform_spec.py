"""A transform job to be made, as data, and its requests. No network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.aws import instances, names
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.endpoints import deployment, modes
from scripts.endpoints.invocations import JSON

IMAGES = "application/x-image"
MIB = 2**20
DEFAULT_MIB = 6  # of a request: what the server takes, and tells the service, unless it is told otherwise
MAX_MIB = 100  # the service's limit, also for the product with the number of requests at once
SECONDS = 60  # for one image, before it is sent again
RETRIES = 1


@dataclass(frozen=True)
class Transform:
    """A job over the images that a manifest lists; the model is made for it, under its name.

    `out`: the prefix of all that it leaves. `images`: the prefix of the images; `largest`: bytes of the largest one.
    """

    name: str
    image: str
    model_data: S3Uri
    instance_type: str
    instance_count: int
    environment: Mapping[str, str]
    network_isolation: bool
    out: S3Uri
    images: S3Uri
    largest: int = 0

    @property
    def manifest(self) -> S3Uri:
        return manifest(self.out)

    @property
    def mib(self) -> int:
        """The size of a request that the service may send, in MiB."""
        return max(DEFAULT_MIB, -(-self.largest // MIB))

    def requests(self, settings: Settings) -> list[Request]:
        tags = settings.all_tags()
        container = {"Image": self.image, "ModelDataUrl": str(self.model_data)}
        model = deployment.model_request(self.name, container, self.environment, tags, settings, self.network_isolation)
        output = {"S3OutputPath": str(answers(self.out)), "Accept": JSON}
        if settings.output_kms_key:
            output["KmsKeyId"] = settings.output_kms_key
        resources: dict[str, Any] = {"InstanceType": self.instance_type, "InstanceCount": self.instance_count}
        if settings.volume_kms_key and instances.takes_volume_key(self.instance_type):
            resources["VolumeKmsKeyId"] = settings.volume_kms_key
        job: dict[str, Any] = {
            "TransformJobName": self.name,
            "ModelName": self.name,
            "BatchStrategy": "SingleRecord",
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": str(self.manifest)}},
                "ContentType": IMAGES,
                "SplitType": "None",
            },
            "TransformOutput": output,
            "TransformResources": resources,
            # What is read stands in the manifest only: here cleanup.py finds it too.
            "Environment": {"BYOC_BATCH_IMAGES": f"{self.images}/"},
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": SECONDS, "InvocationsMaxRetries": RETRIES},
            "Tags": names.tag_list(tags),
        }
        if self.mib > DEFAULT_MIB:  # otherwise the service asks the server's /execution-parameters for both
            job["MaxPayloadInMB"] = self.mib
            job["MaxConcurrentTransforms"] = max(1, min(modes.cpus(self.instance_type), MAX_MIB // self.mib))
        return [model, Request("sagemaker", "CreateTransformJob", job)]


def manifest(out: S3Uri) -> S3Uri:
    """Return the address of the list of images of a job that leaves its results below `out`."""
    return out / "images.manifest"


def answers(out: S3Uri) -> S3Uri:
    """Return the prefix of a job's answers, one object per image."""
    return out / "answers"
