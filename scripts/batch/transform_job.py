"""A transform job in the account: made, followed to its end, its answers merged."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import creation, requests
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import PROJECT_TAG, S3Uri
from scripts.aws.parallel import each
from scripts.aws.polling import JOB_SECONDS, poll
from scripts.aws.requests import Request, send
from scripts.aws.settings import Settings
from scripts.batch import transform_input, transform_spec, transform_table
from scripts.batch.transform_spec import Transform
from scripts.batch.transform_table import Table
from scripts.console.command import progress
from scripts.endpoints import lookup, rollout
from scripts.jobs import training_jobs
from scripts.jobs.existing import is_stopped
from scripts.jobs.watch import leaving_it_running
from scripts.resources.inventory import MODEL, Resource
from scripts.s3 import objects
from scripts.s3.bucket import owner
from scripts.s3.objects import s3_location

PROGRAM = "transform.py"
POLL_SECONDS = 10.0
LOG_GROUP = "/aws/sagemaker/TransformJobs"
TABLE = "predictions.csv"


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
    found = requests.describe(aws, "TransformJob", name)
    if found is None:
        raise CloudError(f"there is no transform job {name} in {aws.region}: check the name and --region")
    return found


def stop(aws: Aws, name: str, project: str) -> None:
    """Raises CloudError for a job that is not this project's."""
    job = describe(aws, name)
    if training_jobs.tags_of(aws, job["TransformJobArn"]).get(PROJECT_TAG) != project:
        raise CloudError(f"the transform job {name} has no tag {PROJECT_TAG}={project}: these scripts did not make it")
    try:
        send(aws, Request("sagemaker", "StopTransformJob", {"TransformJobName": name}))
        progress(f"stopping the transform job {name}")
    except ClientError as error:
        if not is_stopped(error):
            raise
        progress(f"the transform job {name} is {job['TransformJobStatus']} already")


def finish(aws: Aws, name: str, settings: Settings, top_k: int, *, as_json: bool) -> int:
    """Follow a job to its end, merge its answers, remove the model that was made for it, and report; the exit code.

    Raises Interrupted for Ctrl-C, which leaves it running; CloudError where its images or answers cannot be read.
    """
    job = _follow(aws, name)
    answers = S3Uri.parse(job["TransformOutput"]["S3OutputPath"], "S3OutputPath")
    out = S3Uri(answers.bucket, answers.key.rpartition("/")[0])
    if transform_spec.answers(out) != answers:
        raise CloudError(f"the transform job {name} was not made by this script: its answers are in {answers}")
    status = job["TransformJobStatus"]
    if status != "Completed":
        reason = job.get("FailureReason") or "SageMaker gives no reason"
        progress(f"the transform job is {status}: {reason}; the end of its log in {LOG_GROUP}:")
        for line in lookup.last_lines(aws, LOG_GROUP, f"{name}/"):
            progress(f"  {line}")
    prefix, files = transform_input.read_manifest(aws, transform_spec.manifest(out))
    table = _merge(aws, prefix, files, answers, top_k)
    place = {**s3_location(out / TABLE), "Body": table.csv(), "ContentType": "text/csv"}
    send(aws, Request("s3", "PutObject", {**place, **objects.encryption(settings)}))
    rollout.remove_unused(aws, [Resource(MODEL, job["ModelName"])] if job["ModelName"] == name else [])
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
        return said not in ("InProgress", "Stopping")

    with leaving_it_running(name, aws.region, "job", PROGRAM):
        return poll(lambda: describe(aws, name), is_over, POLL_SECONDS, JOB_SECONDS, say=progress, untouched="the job")


def _merge(aws: Aws, prefix: S3Uri, files: list[str], answers: S3Uri, top_k: int) -> Table:
    s3 = aws.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=answers.bucket, Prefix=f"{answers.key}/", **owner(answers.bucket)
    )
    outputs = [item["Key"].removeprefix(f"{answers.key}/") for page in pages for item in page.get("Contents", ())]
    found: dict[str, bytes] = {}

    def read(pair: tuple[str, str]) -> bytes:
        content: bytes = s3.get_object(**s3_location(answers / pair[1]))["Body"].read()
        return content

    try:
        pairs = transform_table.matched(prefix.key, files, outputs).items()
        each(read, pairs, lambda pair, content: found.update({pair[0]: content}))
    except (ClientError, BotoCoreError) as error:
        raise CloudError(f"{explain(error)}; the answers stay in {answers}") from None
    return transform_table.merge(files, found, {}, top_k)


def need_empty(aws: Aws, out: S3Uri) -> None:
    """Raises CloudError where something is below --out: answers of two jobs could not be told apart."""
    found = aws.client("s3").list_objects_v2(Bucket=out.bucket, Prefix=f"{out.key}/", MaxKeys=1, **owner(out.bucket))
    if found.get("Contents"):
        raise CloudError(f"--out {out} is not empty ({found['Contents'][0]['Key']}): give another prefix")
