#!/usr/bin/env python3
"""Serve a model at a SageMaker endpoint, or on this machine through the SDK's local mode.

scripts/deploy.py --image URI --model-data s3://BUCKET/byoc/JOB/output/model.tar.gz
scripts/deploy.py --image URI --job JOB --name byoc-dogs             the model of a training job, under a name of yours
scripts/deploy.py --image URI --job JOB2 --name byoc-dogs --update   a new model at the same endpoint
scripts/deploy.py --image URI --job JOB --serverless 2048            nothing to pay when idle
scripts/deploy.py --image URI --job JOB --async s3://BUCKET/byoc/answers --max-instances 2      a queue, down to zero
scripts/deploy.py --image URI --multi-model s3://BUCKET/byoc/models  several models; --add NAME MODEL puts one there
scripts/deploy.py --image URI --job JOB --min-instances 1 --max-instances 4      autoscaling
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

from botocore.exceptions import BotoCoreError, ClientError

from container_serve.settings import PAGE
from scripts.aws import names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.requests import Request, check, show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.endpoints import deploy_flags, deployment, lookup, model_data, model_store, modes, rollout, scaling
from scripts.endpoints.deployment import Deployment
from scripts.endpoints.modes import MULTI_MODEL
from scripts.endpoints.scaling import Scaling
from scripts.models import package, registration
from scripts.models.reference import Reference

PROGRAM = "deploy.py"


def main(arguments: Sequence[str]) -> int:
    flags = deploy_flags.parser(PROGRAM, __doc__ or "").parse_args(arguments)
    chosen = settings.load(flags)
    deploy_flags.check(flags)
    environment = command.key_values(flags.environment, "--environment")
    if environment.get("SAGEMAKER_MULTI_MODEL", "").strip().lower() == "true":
        several = "a server that waits for several models would answer every request with 404; take --multi-model"
        raise CloudError(f"--environment SAGEMAKER_MULTI_MODEL=true: this is an endpoint of one model; {several}", 2)
    if not flags.local and environment.get(PAGE, "").strip().lower() == "true":
        raise CloudError(f"--environment {PAGE}=true: an endpoint on AWS has no page: leave it out, or add --local", 2)
    if flags.local:
        from scripts.endpoints import local_endpoint

        return local_endpoint.run(flags, chosen, environment)
    region = chosen.need_region()
    if flags.attach:
        return _attach(chosen.aws(), flags, chosen)
    if flags.add or flags.remove:
        modes.of(flags, chosen)
        return model_store.change(flags, chosen)
    if flags.register or flags.approve:
        return registration.run(flags, chosen, region, environment)
    wanted = deployment.from_flags(flags, chosen, region, environment)
    scaled = scaling.from_flags(flags, wanted.endpoint, wanted.mode.name)
    if flags.dry_run:
        requests = [*deployment.requests(wanted, flags, chosen), *(scaled.requests(chosen) if scaled else ())]
        print(show(requests, allow_unknown=chosen.allow_unknown))
        return 0
    return _deploy(chosen.aws(), wanted, scaled, flags, chosen)


def _attach(aws: Aws, flags: argparse.Namespace, chosen: Settings) -> int:
    endpoint = rollout.attach(aws, names.checked(flags.attach, "--attach"))
    if flags.max_instances or flags.min_instances is not None or flags.target:
        lookup.need_own(aws, endpoint, chosen.project)
        configuration = lookup.configuration(aws, endpoint.configuration)
        scaled = scaling.from_flags(flags, endpoint.name, configuration.mode if configuration else modes.REAL_TIME)
        _scale(aws, scaled, [], chosen)
    result = {
        "endpoint": endpoint.name,
        "status": endpoint.status,
        "region": aws.region,
        "configuration": endpoint.configuration,
    }
    return _report(result, as_json=flags.json)


def _deploy(aws: Aws, wanted: Deployment, scaled: Scaling | None, flags: argparse.Namespace, chosen: Settings) -> int:
    begun = time.monotonic()
    if flags.job:
        wanted = replace(wanted, model_data=rollout.model_of(aws, flags.job))
    if flags.model_package:
        found = package.need_approved(aws, Reference.parse(flags.model_package, "--model-package"))
        wanted = replace(wanted, image=found.image, model_data=found.model_data, package=found.arn)
    for request in [*deployment.requests(wanted, flags, chosen), *(scaled.requests(chosen) if scaled else ())]:
        check(request, allow_unknown=chosen.allow_unknown)
    before, held = None, []
    if flags.update:
        before = rollout.need_updatable(aws, wanted, chosen.project, flags.instance_type)
        wanted = replace(wanted, instance_count=flags.instance_count or before.instance_count or 1)
        if not wanted.is_serverless:
            deployment.check_strategy(flags.strategy, wanted.instance_count)
    requests = deployment.requests(wanted, flags, chosen)
    if not before:
        rollout.need_free(aws, wanted, requests)
    if wanted.mode.name == MULTI_MODEL:
        model_store.need_image(aws, wanted)
    else:
        model_data.need_servable(aws, wanted.image, wanted.model_data, wanted.environment)
    if before and before.instance_type not in (None, wanted.instance_type) and not flags.no_wait:
        # The service refuses such an update while there is autoscaling.
        held = scaling.remove(aws, wanted.endpoint, chosen)
    status = "Updating" if before else "Creating"
    try:
        rollout.send_all(aws, requests)
        try:
            progress(f"{status.lower()} the endpoint {wanted.endpoint}; {wanted.cost(aws.region)}")
            progress(f"remove it with: scripts/cleanup.py {wanted.endpoint} --region {aws.region}")
            if not flags.no_wait:
                status = rollout.wait_in_service(aws, wanted, requests, update=flags.update).status
        except KeyboardInterrupt:
            raise rollout.goes_on(wanted.endpoint, aws.region) from None
    finally:
        _scale(aws, scaled if status == "InService" else None, held, chosen)
    removed = rollout.prune(aws, before, chosen.project) if before and flags.prune else []
    if before and not removed:
        progress(
            f"before, it served the configuration {before.name} (models: {', '.join(before.models)}), which costs"
            " nothing; scripts/cleanup.py --unused removes it, as --prune does"
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
        "autoscaling": [scaled.least, scaled.most] if scaled else None,
        "previous_configuration": before.name if before else None,
        "removed": removed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    return _report(result, as_json=flags.json)


def _scale(aws: Aws, scaled: Scaling | None, held: Sequence[Request], chosen: Settings) -> None:
    """Register the autoscaling that the flags ask for, otherwise again what was `held` during the update."""
    wanted = scaled.requests(chosen) if scaled else held
    if not wanted:
        return
    try:
        scaling.apply(aws, wanted)
    except (ClientError, BotoCoreError) as error:
        again = "scripts/deploy.py --attach NAME --max-instances N registers it"
        complaint = f"{explain(error)}; the endpoint has no autoscaling: {again}"
        if scaled:
            raise CloudError(complaint) from None
        progress(complaint)  # an update may have failed, too
    else:
        bounds = wanted[0].request
        progress(f"autoscaling from {bounds['MinCapacity']} to {bounds['MaxCapacity']} instances")


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
