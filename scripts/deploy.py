#!/usr/bin/env python3
"""Serve a model at a SageMaker endpoint, or on this machine through the SDK's local mode.

scripts/deploy.py --image URI --model-data s3://BUCKET/byoc/JOB/output/model.tar.gz
scripts/deploy.py --image URI --job JOB --name byoc-dogs             the model of a training job, under a name of yours
scripts/deploy.py --image URI --job JOB2 --name byoc-dogs --update   a new model at the same endpoint
scripts/deploy.py --attach byoc-dogs                                 take up waiting again
scripts/deploy.py --image URI --model-data S3 --dry-run              print the requests as JSON, send nothing
scripts/deploy.py --local --model-data local_test/out/model/model.tar.gz     no account: a server here, until Ctrl-C

The image has to be in ECR (scripts/push.sh serve prints its URI), with --local on this machine. An artifact that it
cannot serve is refused before anything is made. An endpoint costs money for as long as it is there:
scripts/cleanup.py NAME removes it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "requests", "tqdm")

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.aws import instances, names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, S3Uri
from scripts.aws.requests import Request, check, show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.endpoints import deployment, model_data, rollout
from scripts.endpoints.deployment import STRATEGIES, Deployment
from scripts.endpoints.lookup import Configuration
from scripts.images import registry
from scripts.jobs import training_jobs

PROGRAM = "deploy.py"


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    chosen = settings.load(flags)
    _check_together(flags)
    environment = _environment(flags.environment)
    if flags.local:
        return _serve_here(flags, chosen, environment)
    region = chosen.need_region()
    if flags.attach:
        return _attach(chosen.aws(), flags)
    plan = _plan(flags, chosen, region, environment)
    if flags.dry_run:
        print(show(plan.requests(_offline(flags, chosen)), allow_unknown=chosen.allow_unknown))
        return 0
    return _deploy(chosen.aws(), plan, flags)


@dataclass(frozen=True)
class Plan:
    """What the flags ask for; the artifact's address may still have to be looked up."""

    flags: argparse.Namespace
    settings: Settings
    endpoint: str
    name: str
    environment: Mapping[str, str]
    policy: Mapping[str, Any] | None
    instance_count: int

    def deployment(self, artifact: S3Uri) -> Deployment:
        return Deployment(
            endpoint=self.endpoint,
            name=self.name,
            image=self.flags.image,
            model_data=artifact,
            instance_type=self.flags.instance_type or deployment.INSTANCE_TYPE,
            instance_count=self.instance_count,
            environment=self.environment,
            startup_timeout=self.flags.startup_timeout,
            download_timeout=self.flags.download_timeout,
            network_isolation=self.flags.network_isolation,
        )

    def requests(self, artifact: S3Uri) -> list[Request]:
        wanted = self.deployment(artifact)
        if not self.flags.update:
            return wanted.create(self.settings)
        return wanted.update(self.settings, self.policy, retain=self.flags.instance_count is None)


def _plan(flags: argparse.Namespace, chosen: Settings, region: str, environment: Mapping[str, str]) -> Plan:
    if not flags.image:
        raise CloudError("no image: give --image URI, as scripts/push.sh serve prints it", 2)
    if not (flags.model_data or flags.job):
        raise CloudError("no model: give --model-data s3://BUCKET/.../model.tar.gz, or the --job that made it", 2)
    Image.parse(flags.image, region)
    chosen.need_role()
    if flags.model_data:
        model_data.s3_uri(flags.model_data)
    remark = deployment.check_instance(flags.instance_type or deployment.INSTANCE_TYPE)
    if remark:
        progress(remark)
    if chosen.volume_kms_key and not instances.takes_volume_key(flags.instance_type or deployment.INSTANCE_TYPE):
        progress(instances.NO_VOLUME_KEY.format(flags.instance_type))
    endpoint = names.checked(flags.name) if flags.name else names.unique(chosen.project, "serve")
    if not endpoint.startswith(chosen.project):
        progress(f"{endpoint} does not begin with {chosen.project}: the permissions in scripts/iam do not cover it")
    base = deployment.resource_name(endpoint, chosen.project)
    count = flags.instance_count or 1
    if flags.instance_count:
        deployment.check_strategy(flags.strategy, count)
    policy = deployment.policy(flags.strategy, flags.pause, flags.alarm)
    return Plan(flags, chosen, endpoint, names.unique(base) if flags.update else base, environment, policy, count)


def _offline(flags: argparse.Namespace, chosen: Settings) -> S3Uri:
    """The artifact's address without asking AWS."""
    if flags.model_data:
        return model_data.s3_uri(flags.model_data)
    uri: S3Uri = chosen.home() / flags.job / "output" / "model.tar.gz"
    progress(f"--dry-run: the model of {flags.job} is taken to lie where train.py lets it be put by default")
    return uri


def _deploy(aws: Aws, plan: Plan, flags: argparse.Namespace) -> int:
    begun = time.monotonic()
    artifact = _of_job(aws, flags.job) if flags.job else model_data.s3_uri(flags.model_data)
    for request in plan.requests(artifact):
        check(request, allow_unknown=plan.settings.allow_unknown)
    before = None
    if flags.update:
        before = rollout.need_updatable(aws, plan.endpoint, plan.settings.project)
        _need_same_type(before, plan, flags)
        plan = replace(plan, instance_count=flags.instance_count or before.instance_count)
        deployment.check_strategy(flags.strategy, plan.instance_count)
    wanted, requests = plan.deployment(artifact), plan.requests(artifact)
    if not before:
        rollout.need_free(aws, wanted, requests)
    _need_servable(aws, wanted)
    rollout.send_all(aws, requests)
    status = "Updating" if before else "Creating"
    try:
        cost = instances.describe(wanted.instance_type, wanted.instance_count, aws.region)
        progress(f"{'changing' if before else 'making'} the endpoint {plan.endpoint}; {cost}")
        progress(f"remove it with: scripts/cleanup.py {plan.endpoint} --region {aws.region}")
        if not flags.no_wait:
            status = rollout.settle(aws, wanted, requests, update=flags.update).status
    except KeyboardInterrupt:
        raise rollout.goes_on(plan.endpoint, aws.region) from None
    removed = rollout.prune(aws, before, plan.settings.project) if before and flags.prune else []
    if before and not removed:
        progress(
            f"before, it served the configuration {before.name} (models: {', '.join(before.models)}), which costs"
            " nothing; scripts/cleanup.py --unused removes it, as --prune does"
        )
    price = instances.price(wanted.instance_type, aws.region).hourly
    result = {
        "endpoint": plan.endpoint,
        "status": status,
        "region": aws.region,
        "configuration": plan.name,
        "model": plan.name,
        "image": wanted.image,
        "model_data": str(artifact),
        "instance_type": wanted.instance_type,
        "instance_count": wanted.instance_count,
        "usd_per_hour": None if price is None else price * wanted.instance_count,
        "previous_configuration": before.name if before else None,
        "removed": removed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    _report(result, flags)
    return 0


def _of_job(aws: Aws, name: str) -> S3Uri:
    """Where a training job has left its model. Raises CloudError unless it has completed."""
    job = training_jobs.describe(aws, name, with_tags=False)
    if job.status != "Completed" or not job.artifact:
        raise CloudError(f"the training job {name} is {job.status}: only a completed one has a model to deploy")
    return model_data.s3_uri(job.artifact, "--job")


def _need_same_type(now: Configuration, plan: Plan, flags: argparse.Namespace) -> None:
    """Nobody who changes the model should come to other instances without a word. Raises CloudError."""
    if not flags.instance_type and now.instance_type != deployment.INSTANCE_TYPE:
        raise CloudError(
            f"{plan.endpoint} runs on {now.instance_count} x {now.instance_type}: say with --instance-type what it"
            " shall run on",
            2,
        )


def _need_servable(aws: Aws, wanted: Deployment) -> None:
    """Raises CloudError where image or artifact is missing, or the one cannot serve the other."""
    image = Image.parse(wanted.image)
    registry.find(aws, image)
    server = model_data.Server.of(wanted.image, registry.image_labels(aws, image), wanted.environment)
    with tempfile.TemporaryDirectory(prefix="byoc-") as folder:
        model = Path(folder, "model")
        try:
            model_data.fetch(aws, wanted.model_data, model)
        except model_data.UnusualError as error:
            if server:
                raise
            progress(f"not checked: {error}")
            return
        progress(model_data.check(model, str(wanted.model_data), server, wanted.image))


def _attach(aws: Aws, flags: argparse.Namespace) -> int:
    endpoint = rollout.attach(aws, names.checked(flags.attach, "--attach"))
    result = {
        "endpoint": endpoint.name,
        "status": endpoint.status,
        "region": aws.region,
        "configuration": endpoint.configuration,
    }
    _report(result, flags)
    return 0


def _report(result: Mapping[str, Any], flags: argparse.Namespace) -> None:
    name, region = result["endpoint"], result["region"]
    if result["status"] == "InService":
        progress(f"{name} is in service; try it: scripts/predict.py {name} PICTURE --region {region}")
    else:
        progress(f"{name} is {result['status']}; wait for it: scripts/deploy.py --attach {name} --region {region}")
    print(json.dumps(result, indent=2) if flags.json else name)


def _serve_here(flags: argparse.Namespace, chosen: Settings, environment: Mapping[str, str]) -> int:
    """Serve through the SDK's local mode until Ctrl-C."""
    from scripts.endpoints import local_endpoint
    from scripts.resources import leftovers

    if not flags.model_data:
        raise CloudError("no model: give --model-data FILE/model.tar.gz, such as local_test/out/model/model.tar.gz", 2)
    in_s3 = flags.model_data.startswith("s3://")
    artifact = model_data.s3_uri(flags.model_data) if in_s3 else model_data.file(flags.model_data)
    if in_s3:
        chosen.need_region()
    place = local_endpoint.Place.find(flags.image)
    place.need_free(flags.port)
    server = model_data.Server.of(place.image, place.labels(), environment)
    with leftovers.folder(Path(tempfile.gettempdir())) as work:
        model = work / "model"
        if isinstance(artifact, Path):
            model_data.unpack(artifact, model)
        else:
            model_data.fetch(chosen.aws(), artifact, model)
        progress(model_data.check(model, flags.model_data, server, place.image))
        with place.serve(work, model, environment, flags.port) as url:
            progress(f"try it: scripts/predict.py --local {url} PICTURE")
            print(json.dumps({"url": url, "image": place.image}) if flags.json else url, flush=True)
            local_endpoint.wait(url)
    return 0


def _check_together(flags: argparse.Namespace) -> None:
    """Raises CloudError for flags that contradict each other."""
    if flags.model_data and flags.job:
        raise CloudError("--model-data and --job: give one of them", 2)
    if flags.local and (flags.update or flags.attach or flags.job or flags.dry_run):
        raise CloudError("--local serves a --model-data here: no --job, --update, --attach or --dry-run with it", 2)
    if flags.port is not None and not flags.local:
        raise CloudError("--port goes with --local", 2)
    if flags.port is not None and not 1 <= flags.port <= 65535:
        raise CloudError(f"--port {flags.port}: expected a number from 1 to 65535", 2)
    if flags.update and not flags.name:
        raise CloudError("--update needs the --name of the endpoint", 2)
    if not flags.update and (flags.prune or flags.alarm or flags.strategy != STRATEGIES[0]):
        raise CloudError("--prune, --strategy and --alarm go with --update", 2)
    if flags.prune and flags.no_wait:
        raise CloudError("--prune removes what served before once the new one serves: it cannot go with --no-wait", 2)
    if flags.attach and (flags.image or flags.dry_run):
        raise CloudError("--attach waits for an endpoint that is there: it takes no --image and no --dry-run", 2)


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise CloudError(f"--environment has value {pair!r}: expected KEY=VALUE", 2)
        found[key] = value
    if found.get("SAGEMAKER_MULTI_MODEL", "").strip().lower() == "true":
        raise CloudError(
            "--environment SAGEMAKER_MULTI_MODEL=true: this makes an endpoint of one model, at which a server that"
            " waits to be given several would answer every request with 404; leave it out",
            2,
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    parser.add_argument("--image", metavar="URI", help="the serving image, in ECR; with --local one on this machine")
    parser.add_argument("--model-data", metavar="URI", help="model.tar.gz in S3; with --local also a file")
    parser.add_argument("--job", metavar="NAME", help="in place of --model-data: the training job that made it")
    parser.add_argument("--name", help="of the endpoint (default: PROJECT and the time)")
    parser.add_argument("--instance-type", metavar="T", help=f"default: {deployment.INSTANCE_TYPE}")
    parser.add_argument(
        "--instance-count", metavar="N", type=_positive, help="default: 1, --update: as many as there are"
    )
    parser.add_argument("--environment", metavar="K=V", action="append", default=[], help="for the server; repeatable")
    parser.add_argument("--network-isolation", action="store_true", help="the container gets no network")
    seconds = _seconds(60, 3600)
    parser.add_argument("--startup-timeout", metavar="S", type=seconds, default=600, help="until /ping is 200 (600)")
    parser.add_argument("--download-timeout", metavar="S", type=seconds, default=600, help="for model.tar.gz (600)")
    changes = parser.add_argument_group("changing an endpoint that is there")
    changes.add_argument("--update", action="store_true", help="give the endpoint --name this model and configuration")
    changes.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="how the instances change over")
    changes.add_argument("--pause", metavar="S", type=_seconds(0, 3600), default=300, help="between the steps (300)")
    changes.add_argument("--alarm", metavar="NAME", action="append", default=[], help="CloudWatch alarm: go back on it")
    changes.add_argument("--prune", action="store_true", help="then remove the configuration and model from before")
    here = parser.add_argument_group("on this machine")
    here.add_argument("--local", action="store_true", help="serve through the SDK's local mode; needs no account")
    here.add_argument("--port", type=int, metavar="N", help="for --local (default: a free one)")
    parser.add_argument("--attach", metavar="NAME", help="wait for an endpoint that is being made or changed")
    parser.add_argument("--no-wait", action="store_true", help="end as soon as it is being made")
    parser.add_argument("--wait", dest="no_wait", action="store_false", help="until it serves (default)")
    parser.add_argument("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    settings.add_flags(parser, "role", "bucket", "project", "tags", "subnets", "security_groups", "volume_kms_key")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _seconds(low: int, high: int) -> Any:
    def seconds(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return seconds


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
