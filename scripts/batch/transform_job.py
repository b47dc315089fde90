"""A transform job: as data, with its requests; and in the account, made, followed to its end, its answers merged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import creation, instances, names, requests
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import PROJECT_TAG, S3Uri
from scripts.aws.parallel import gather
from scripts.aws.polling import poll
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.batch import transform_input, transform_table
from scripts.batch.transform_input import MAX_MIB, MIB
from scripts.batch.transform_table import Table
from scripts.console.command import progress
from scripts.endpoints import deployment, lookup, modes, rollout
from scripts.endpoints.deployment import ServedModel
from scripts.endpoints.invocations import JSON
from scripts.jobs import existing, training_jobs
from scripts.jobs.watch import leaving_it_running
from scripts.resources.inventory import Kind, Resource
from scripts.s3 import bucket, objects

PROGRAM = "transform.py"
LOG_GROUP = "/aws/sagemaker/TransformJobs"
TABLE = "predictions.csv"
MANIFEST, ANSWERS = "images.manifest", "answers"  # below a job's --out: the list of the images; an object per image
IMAGES = "application/x-image"
DEFAULT_MIB = 6  # of a request: what the server takes, and tells the service, unless it is told otherwise
SECONDS = 60  # for one image, before it is sent again
RETRIES = 1


@dataclass(frozen=True)
class Transform(ServedModel):
    """A job over the images that a manifest lists; the model is made for it, under its name.

    `out`: the prefix of all that it leaves. `images`: the prefix of the images; `largest`: bytes of the largest one.
    """

    out: S3Uri
    images: S3Uri
    largest: int = 0

    @property
    def mib(self) -> int:
        """The size of a request that the service may send, in MiB."""
        return max(DEFAULT_MIB, -(-self.largest // MIB))

    def requests(self, settings: Settings) -> list[Request]:
        tags = settings.all_tags()
        container = {"Image": self.image, "ModelDataUrl": str(self.model_data)}
        model = deployment.model_request(self.name, container, self.environment, tags, settings, self.network_isolation)
        output = {"S3OutputPath": str(self.out / ANSWERS), "Accept": JSON}
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
                "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": str(self.out / MANIFEST)}},
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


def make(aws: Aws, spec: Transform, settings: Settings) -> None:
    """Create the model and the job; the model goes again where the job is refused."""
    model, job = spec.requests(settings)
    creation.create(aws, model)
    try:
        creation.create(aws, job)
    except (ClientError, CloudError) as error:
        if not isinstance(error, creation.UnansweredError):
            rollout.undo(aws, [model])
        raise


def describe(aws: Aws, name: str) -> dict[str, Any]:
    """Raises CloudError where there is no such job."""
    return requests.need(aws, "TransformJob", name, "transform job")


def stop(aws: Aws, name: str, project: str, *, as_json: bool) -> int:
    """Have a job stopped; the exit code. Raises CloudError for a job that is not this project's."""
    arn = describe(aws, name)["TransformJobArn"]
    if training_jobs.tags_of(aws, arn).get(PROJECT_TAG) != project:
        raise CloudError(f"the transform job {name} has no tag {PROJECT_TAG}={project}: these scripts did not make it")
    return existing.stop(aws, "TransformJob", name, "transform job", PROGRAM, "", as_json=as_json)


def finish(aws: Aws, name: str, settings: Settings, top_k: int, *, as_json: bool) -> int:
    """Follow a job to its end, merge its answers, remove the model that was made for it, and report; the exit code.

    Raises Interrupted for Ctrl-C, which leaves it running; CloudError where its images or answers cannot be read.
    """
    job = _follow(aws, name)
    answers = S3Uri.parse(job["TransformOutput"]["S3OutputPath"], "S3OutputPath")
    out = S3Uri(answers.bucket, answers.key.rpartition("/")[0])
    if out / ANSWERS != answers:
        raise CloudError(f"the transform job {name} was not made by this script: its answers are in {answers}")
    status = job["TransformJobStatus"]
    if status != "Completed":
        reason = job.get("FailureReason") or "SageMaker gives no reason"
        progress(f"the transform job is {status}: {reason}; the end of its log in {LOG_GROUP}:")
        for line in lookup.last_lines(aws, LOG_GROUP, f"{name}/"):
            progress(f"  {line}")
    prefix, files = transform_input.read_manifest(aws, out / MANIFEST)
    table = _merge(aws, prefix, files, answers, top_k)
    objects.write(aws, out / TABLE, table.csv(), settings, "text/csv")
    rollout.remove_unused(aws, [Resource(Kind.MODEL, job["ModelName"])] if job["ModelName"] == name else [])
    if as_json:
        found = {"job": name, "status": status, "out": str(out), "predictions": str(out / TABLE)}
        print(json.dumps({**found, "images": len(files), "failed": table.failed}, indent=2))
    else:
        print(table.text())
    return transform_table.report(table, len(files), out / TABLE, PROGRAM) or int(status != "Completed")


def _follow(aws: Aws, name: str) -> dict[str, Any]:
    said = ""

    def is_over(job: Mapping[str, Any]) -> bool:
        nonlocal said
        if job["TransformJobStatus"] != said:
            said = job["TransformJobStatus"]
            progress(f"{name}: {said}")
        return said not in training_jobs.IN_PROGRESS

    with leaving_it_running(name, aws.region, "job", PROGRAM):
        return poll(lambda: describe(aws, name), is_over, say=progress, untouched="the job")


def _merge(aws: Aws, prefix: S3Uri, files: list[str], answers: S3Uri, top_k: int) -> Table:
    outputs = [key for key, _ in bucket.below(aws, answers)]

    def read(output: str) -> bytes:
        return objects.read(aws, answers / output) or b""

    pairs = transform_table.matched(prefix.key, files, outputs)
    try:
        found = dict(zip(pairs, gather(read, pairs.values()), strict=True))
    except (ClientError, BotoCoreError) as error:
        raise CloudError(f"{explain(error)}; the answers stay in {answers}") from None
    return transform_table.merge(files, found, {}, top_k)


def need_empty(aws: Aws, out: S3Uri) -> None:
    """Raises CloudError where something is below --out: answers of two jobs could not be told apart."""
    for key, _ in bucket.below(aws, out):
        raise CloudError(f"--out {out} is not empty ({key}): give another prefix")
