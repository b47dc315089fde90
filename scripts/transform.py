#!/usr/bin/env python3
"""Predict all images of a folder or prefix: a batch transform job, followed to its end.

scripts/transform.py --image URI --job JOB --data DIR                       uploads the images first
scripts/transform.py --image URI --model-data s3://BUCKET/byoc/JOB/output/model.tar.gz --data s3://BUCKET/PREFIX
scripts/transform.py --attach byoc-transform-1                              follow it again, merge its answers
scripts/transform.py --stop byoc-transform-1
scripts/transform.py --image URI --job JOB --data s3://BUCKET/PREFIX --dry-run       print the requests, send nothing
scripts/transform.py --local --model-data local_test/out/model/model.tar.gz --data DIR     no account: a server here

The instances exist and are billed for as long as the job runs. It leaves, below --out, an answer per image and
predictions.csv with a row per image: file, label, probability, or the error. The exit code is 1 if any image failed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "requests", "tqdm", "docker")

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scripts.aws import instances, names, settings
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request, check, show
from scripts.aws.settings import Settings
from scripts.batch import transform_input, transform_job
from scripts.batch.transform_job import MANIFEST, PROGRAM, Transform
from scripts.console import command
from scripts.console.command import integer, progress, refuse
from scripts.endpoints import deploy_flags, deployment, model_data, rollout
from scripts.jobs import existing
from scripts.s3 import storage

MAX_TOP_K = 5  # the server's default, which a transform job cannot change


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    chosen = settings.load(flags)
    if flags.attach or flags.stop:
        name = existing.named(flags, (), _parser().parse_args([]), "job", also={"top_k"})
        if flags.stop:
            return transform_job.stop(chosen.aws(), name, chosen.project, as_json=flags.json)
        return transform_job.finish(chosen.aws(), name, chosen, flags.top_k, as_json=flags.json)
    _check_together(flags)
    environment = deploy_flags.environment(flags)
    if flags.local:
        from scripts.batch import local_transform

        return local_transform.run(flags, chosen, environment)
    spec = _spec(flags, chosen, environment)
    if flags.dry_run:
        return _dry_run(spec, flags, chosen)
    return _transform(spec, flags, chosen)


def _transform(spec: Transform, flags: argparse.Namespace, chosen: Settings) -> int:
    aws = chosen.aws()
    artifact = rollout.model_of(aws, flags.job) if flags.job else spec.model_data
    model_data.need_servable(aws, spec.image, artifact, spec.environment)
    model_data.need_architecture(aws, spec.image, spec.instance_type)
    transform_job.need_empty(aws, spec.out)
    images = transform_input.in_s3(aws, flags.data, chosen)
    spec = replace(spec, model_data=artifact, largest=max(images.values()))
    for request in spec.requests(chosen):
        check(request, allow_unknown=chosen.allow_unknown)
    progress(
        f"{len(images)} images, {sum(images.values()) / 1e6:,.1f} MB;"
        f" {instances.describe(spec.instance_type, spec.instance_count, aws.region)}, billed while the job runs"
    )
    transform_input.write_manifest(aws, spec.images, images, spec.out / MANIFEST, chosen)
    transform_job.make(aws, spec, chosen)
    if not flags.wait:
        return existing.leave(spec.name, aws.region, PROGRAM, as_json=flags.json)
    return transform_job.finish(aws, spec.name, chosen, flags.top_k, as_json=flags.json)


def _spec(flags: argparse.Namespace, chosen: Settings, environment: Mapping[str, str]) -> Transform:
    """Return what the flags ask for, without asking AWS. Raises CloudError."""
    kind = deployment.check_server(flags, chosen, chosen.need_region(), environment, has_volume=True)
    if instances.architecture(kind) == "arm64":
        raise CloudError(f"--instance-type {kind} has ARM processors, which only endpoints have: take ml.m5.large", 2)
    name = names.checked(flags.name) if flags.name is not None else names.unique(chosen.project, "transform")
    return Transform(
        name=name,
        image=flags.image,
        model_data=deployment.artifact_of(flags, chosen),
        instance_type=kind,
        instance_count=flags.instance_count,
        environment=environment,
        network_isolation=flags.network_isolation,
        out=S3Uri.parse(flags.out, "--out") if flags.out else chosen.home() / name,
        images=transform_input.place(flags.data, chosen),
    )


def _dry_run(spec: Transform, flags: argparse.Namespace, chosen: Settings) -> int:
    uploads: list[Request] = []
    if not flags.data.startswith("s3://"):
        items = transform_input.uploads(flags.data)
        uploads = storage.requests(items, transform_input.home(flags.data, chosen), chosen)
        spec = replace(spec, largest=max(item.size for item in items))
    what = "the list of the images"
    place = spec.out / MANIFEST
    manifest = Request("s3", "PutObject", {"Bucket": place.bucket, "Key": place.key, "Body": what})
    print(show([*uploads, manifest, *spec.requests(chosen)], allow_unknown=chosen.allow_unknown))
    return 0


def _check_together(flags: argparse.Namespace) -> None:
    """Raises CloudError for flags that contradict each other."""
    refuse(
        (not flags.data, "no images: give --data DIR or s3://BUCKET/PREFIX"),
        (
            flags.data and not flags.data.startswith("s3://") and not Path(flags.data).is_dir(),
            f"--data {flags.data}: no such folder; give one, or s3://BUCKET/PREFIX",
        ),
        (flags.model_data and flags.job, "--model-data and --job: give one of them"),
        (not flags.local and not (flags.model_data or flags.job), "no model: give --model-data or --job"),
        (flags.local and (flags.job or flags.dry_run), "--local takes a --model-data here: no --job or --dry-run"),
        (
            flags.data and flags.out and _is_within(flags.out, flags.data),
            f"--out {flags.out} is in --data {flags.data}: the results would lie among the images; give another place",
        ),
    )


def _is_within(out: str, data: str) -> bool:
    """Tell whether an address in S3, or a folder, is another one or is below it."""
    if out.startswith("s3://") and data.startswith("s3://"):
        return f"{S3Uri.parse(out, '--out')}/".startswith(f"{S3Uri.parse(data, '--data')}/")
    return not out.startswith("s3://") and Path(out).resolve().is_relative_to(Path(data).resolve())


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    what = parser.add_argument_group("model and images")
    deploy_flags.add_model(what)
    what.add_argument("--data", metavar="DIR|S3", help="images, at any depth")
    what.add_argument("--out", metavar="S3", help="an empty prefix for the results (default: BUCKET/PROJECT/NAME)")
    what.add_argument("--top-k", metavar="N", type=integer(1, MAX_TOP_K), default=1, help="rows for each image (1)")
    job = parser.add_argument_group("job")
    job.add_argument("--name", help="of the job (default: PROJECT-transform and the time)")
    job.add_argument("--instance-count", metavar="N", type=integer(1, 100), default=1, help="share the images (1)")
    deploy_flags.add_server(job)
    existing.flags(parser, "job", "with a server in Docker here; --data and --out are folders", "")
    settings.add_flags(parser, *settings.RESOURCE_KEYS)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
