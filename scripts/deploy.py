#!/usr/bin/env python3
"""Serve a model at a SageMaker endpoint, or on this machine through the SDK's local mode.

scripts/deploy.py --image URI --model-data s3://BUCKET/byoc/JOB/output/model.tar.gz
scripts/deploy.py --image URI --job JOB --name byoc-dogs             the model of a training job, under a name of yours
scripts/deploy.py --image URI --job JOB2 --name byoc-dogs --update   a new model at the same endpoint
scripts/deploy.py --image URI --job JOB --serverless 2048            nothing to pay when idle
scripts/deploy.py --image URI --job JOB --async s3://BUCKET/byoc/answers --max-instances 2      a queue, down to zero
scripts/deploy.py --image URI --multi-model s3://BUCKET/byoc/models  several models; --add NAME MODEL puts one there
scripts/deploy.py --image URI --job JOB --min-instances 1 --max-instances 4      autoscaling
scripts/deploy.py --image URI --job JOB --alarms --dashboard --capture 10 --max-usd-per-day 5     watched, and limited
scripts/deploy.py --image URI --job JOB --instance-type ml.m5.large,ml.c5.large  the next type where one is short
scripts/deploy.py --image URI --job JOB --register byoc-dogs         a version in the model registry; then --approve
scripts/deploy.py --model-package byoc-dogs --name byoc-dogs         its newest approved version, :3 a certain one
scripts/deploy.py --attach byoc-dogs                                 wait for it again
scripts/deploy.py --image URI --model-data S3 --dry-run              print the requests as JSON, send nothing
scripts/deploy.py --local --model-data local_test/out/model/model.tar.gz     no account: a server here, until Ctrl-C

The image has to be in ECR (scripts/push.sh serve prints its URI), with --local on this machine. An artifact that it
cannot serve is refused before anything is created. An endpoint with instances is billed for as long as it exists:
scripts/cleanup.py NAME removes it. docs/deployment.md compares the modes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "requests", "tqdm", "docker")

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scripts.aws import budget, names, settings
from scripts.aws.account import Aws
from scripts.aws.names import Reference
from scripts.aws.requests import Request, check, show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.endpoints import deploy_flags, deployment, lookup, model_data, model_store, modes, rollout, scaling
from scripts.endpoints.deployment import Deployment
from scripts.endpoints.modes import MULTI_MODEL
from scripts.models import package, registration
from scripts.monitoring import alarms, watching

PROGRAM = "deploy.py"


def main(arguments: Sequence[str]) -> int:
    flags = deploy_flags.parser(PROGRAM, __doc__ or "").parse_args(arguments)
    chosen = settings.load(flags)
    deploy_flags.check(flags, chosen)
    environment = deploy_flags.environment(flags)
    if flags.local:
        from scripts.endpoints import local_endpoint

        return local_endpoint.run(flags, chosen, environment)
    region = chosen.need_region()
    if flags.attach:
        return _attach(chosen.aws(), flags, chosen)
    if flags.add or flags.remove:
        return model_store.change(flags, chosen)
    if flags.register or flags.approve:
        return registration.run(flags, chosen, region, environment)
    wanted = deployment.from_flags(flags, chosen, region, environment)
    after = scaling.from_flags(flags, wanted.endpoint, wanted.mode.name, chosen)
    watched = watching.from_flags(flags, wanted.endpoint, wanted.mode.name, region, chosen, shadow=bool(wanted.shadow))
    if flags.dry_run:
        budget.check(wanted.per_day(region, scaling.bounds(after)), flags.max_usd_per_day, "--max-usd-per-day")
        requests = [*deployment.requests(wanted, flags, chosen, alarms.of(watched)), *after]
        requests = [*watched, *requests] if flags.update else [*requests, *watched]
        print(show(requests, allow_unknown=chosen.allow_unknown))
        return 0
    return _deploy(chosen.aws(), wanted, after, watched, flags, chosen)


def _attach(aws: Aws, flags: argparse.Namespace, chosen: Settings) -> int:
    endpoint = rollout.attach(aws, names.checked(flags.attach, "--attach"))
    if flags.max_instances or flags.alarms or flags.dashboard:
        lookup.need_own(aws, endpoint, chosen.project)
        configuration = lookup.configuration(aws, endpoint.configuration)
        mode = configuration.mode if configuration else modes.REAL_TIME
        scaling.register(aws, scaling.from_flags(flags, endpoint.name, mode, chosen), asked=True)
        shadow = bool(configuration and "--shadow" in configuration.extras)
        watched = watching.from_flags(flags, endpoint.name, mode, aws.region, chosen, shadow=shadow)
        watching.apply(aws, endpoint.name, watched)
    result = {
        "endpoint": endpoint.name,
        "status": endpoint.status,
        "region": aws.region,
        "configuration": endpoint.configuration,
    }
    return _report(result, as_json=flags.json)


def _deploy(
    aws: Aws, wanted: Deployment, after: Sequence[Request], watched: Sequence[Request], flags: argparse.Namespace,
    chosen: Settings,
) -> int:  # fmt: skip
    """`after`: autoscaling, registered once the endpoint serves; `watched`: alarms and dashboard."""
    begun = time.monotonic()
    if flags.job:
        wanted = replace(wanted, model_data=rollout.model_of(aws, flags.job))
    if flags.shadow and "://" not in flags.shadow:
        wanted = replace(wanted, shadow=rollout.model_of(aws, flags.shadow))
    if flags.model_package:
        found = package.need_approved(aws, Reference.parse(flags.model_package, "--model-package"))
        wanted = replace(wanted, image=found.image, model_data=found.model_data, package=found.arn)
    for request in [*deployment.requests(wanted, flags, chosen, alarms.of(watched)), *after, *watched]:
        check(request, allow_unknown=chosen.allow_unknown)
    before, held = None, []
    if flags.update:
        before = rollout.need_updatable(aws, wanted, chosen.project, flags.instance_type)
        wanted = replace(wanted, instance_count=flags.instance_count or before.instance_count or 1)
        if not wanted.is_serverless:
            deployment.check_strategy(flags.strategy, wanted.instance_count)
    if flags.max_usd_per_day is not None:
        known = scaling.registered(aws, wanted.endpoint, chosen) if before else []
        bounds = scaling.bounds(scaling.merged(after, known))
        budget.check(wanted.per_day(aws.region, bounds), flags.max_usd_per_day, "--max-usd-per-day")
    requests = deployment.requests(wanted, flags, chosen)
    if not before:
        rollout.need_free(aws, wanted, requests)
    if wanted.mode.name == MULTI_MODEL:
        model_store.need_image(aws, wanted)
    else:
        for artifact in filter(None, (wanted.model_data, wanted.shadow)):
            model_data.need_servable(aws, wanted.image, artifact, wanted.environment)
    model_data.need_architecture(aws, wanted.image, None if wanted.is_serverless else wanted.instance_type)
    if before:
        watching.apply(aws, wanted.endpoint, watched)
        requests = deployment.requests(wanted, flags, chosen, alarms.guards(aws, wanted.endpoint))
    if before and before.instance_type not in (None, wanted.instance_type) and not flags.no_wait:
        # The service refuses such an update while there is autoscaling.
        held = scaling.remove(aws, wanted.endpoint, chosen)
    status = "Updating" if before else "Creating"
    try:
        rollout.send_all(aws, requests)
        progress(f"{status.lower()} the endpoint {wanted.endpoint}; {wanted.cost(aws.region)}")
        progress(f"remove it with: scripts/cleanup.py {wanted.endpoint} --region {aws.region}")
        if not flags.no_wait:
            status = rollout.wait_in_service(aws, wanted.endpoint, wanted.name, requests).status
    finally:
        scales = after if status == "InService" else []
        scaling.register(aws, scaling.merged(scales, held), asked=bool(scales))
    if not before:
        watching.apply(aws, wanted.endpoint, watched)
    removed = rollout.prune(aws, before, chosen.project) if before and flags.prune else []
    if before and not removed:
        progress(
            f"before, it served {before.name} (models: {', '.join(before.models)}), which costs nothing;"
            " scripts/cleanup.py --unused removes it, as --prune does"
        )
    result = {
        "endpoint": wanted.endpoint,
        "status": status,
        "mode": wanted.mode.name,
        "region": aws.region,
        "configuration": wanted.name,
        "model": wanted.name,
        "image": wanted.image,
        "model_data": str(wanted.model_data),
        "instance_type": None if wanted.is_serverless else wanted.instance_type,
        "instance_count": None if wanted.is_serverless else wanted.instance_count,
        "usd_per_hour": wanted.usd_per_hour(aws.region),
        "autoscaling": scaling.bounds(after),
        "alarms": alarms.of(watched),
        "previous_configuration": before.name if before else None,
        "removed": removed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    return _report(result, as_json=flags.json)


def _report(result: Mapping[str, Any], *, as_json: bool) -> int:
    name, region = result["endpoint"], result["region"]
    if result["status"] == "InService":
        progress(f"{name} is in service; try it: scripts/predict.py {name} IMAGE --region {region}")
    else:
        progress(f"{name} is {result['status']}; wait for it: scripts/deploy.py --attach {name} --region {region}")
    print(json.dumps(result, indent=2) if as_json else name)
    return 0


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
