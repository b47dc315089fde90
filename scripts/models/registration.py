"""--register and --approve of deploy.py, and --register of train.py: what the flags ask of the model registry."""

import argparse
import json
from collections.abc import Mapping

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import Image, Reference, S3Uri
from scripts.aws.requests import Request, show
from scripts.aws.settings import Settings
from scripts.console.command import refuse
from scripts.endpoints import deployment, rollout
from scripts.images import registry
from scripts.jobs.training_jobs import Job, TrainingJobSpec
from scripts.models import package
from scripts.models.package import Package

JOB_FLAGS = ("register", "serving_image")  # of train.py


def run(flags: argparse.Namespace, chosen: Settings, region: str, environment: Mapping[str, str]) -> int:
    """Return the exit code. Raises CloudError."""
    if flags.approve:
        reference = Reference.parse(flags.approve, "--approve")
        if flags.dry_run:
            print(show([package.approval_request(reference.arn(chosen.need_role(), region))]))
            return 0
        return _report(package.approve(chosen.aws(), reference), package.APPROVED, as_json=flags.json)
    group = names.checked(flags.register, "--register")
    deployment.check_server(flags, chosen, region, environment, has_volume=True)
    artifact = deployment.artifact_of(flags, chosen)
    if flags.dry_run:
        requests = package.dry(group, flags.image, artifact, flags.instance_type, chosen)
        print(show(requests, allow_unknown=chosen.allow_unknown))
        return 0
    aws = chosen.aws()
    if flags.job:
        artifact = rollout.model_of(aws, flags.job)
    made = package.register(aws, group, flags.image, artifact, flags.instance_type, environment, chosen)
    return _report(made, package.PENDING, as_json=flags.json)


def _report(made: Package, approval: str, *, as_json: bool) -> int:
    result = {"model_package": made.arn, "group": made.group, "version": made.version, "approval": approval}
    print(json.dumps(result, indent=2) if as_json else made)
    return 0


def check_of_job(flags: argparse.Namespace, region: str) -> None:
    """Raises CloudError for flags of train.py that contradict each other."""
    refuse(
        (bool(flags.register) != bool(flags.serving_image), "--register and --serving-image: give both"),
        (
            flags.register and (flags.stop or not flags.wait),
            "--register makes a version once the job has completed: it cannot be combined with --stop or --no-wait",
        ),
    )
    if flags.register:
        names.checked(flags.register, "--register")
        Image.of_target(flags.serving_image, region, "serve", "--serving-image")


def need_image(aws: Aws, flags: argparse.Namespace) -> None:
    """Raises CloudError where the serving image is missing, before a job is paid for."""
    if flags.register:
        registry.find(aws, Image.parse(flags.serving_image))


def requests_of_job(flags: argparse.Namespace, job: TrainingJobSpec, chosen: Settings) -> list[Request]:
    """For --dry-run."""
    if not flags.register:
        return []
    artifact = S3Uri.parse(job.output, "--output") / job.name / "output" / "model.tar.gz"
    return package.dry(flags.register, flags.serving_image, artifact, None, chosen)


def of_job(aws: Aws, job: Job, flags: argparse.Namespace) -> Package:
    """Register the model of a completed job. Raises CloudError, which says how to do it later."""
    try:
        artifact = S3Uri.parse(job.artifact or "", "ModelArtifacts")
        return package.register(aws, flags.register, flags.serving_image, artifact, None, {}, settings.load(flags))
    except (ClientError, BotoCoreError, CloudError) as error:
        later = f"scripts/deploy.py --image {flags.serving_image} --job {job.name} --register {flags.register}"
        raise CloudError(f"{explain(error)}; the model stays, and is not registered: {later} does it") from None
