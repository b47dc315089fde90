#!/usr/bin/env python3
"""Serve a model at a SageMaker endpoint, or on this machine through the SDK's local mode.

scripts/deploy.py --image URI --model-data s3://BUCKET/byoc/JOB/output/model.tar.gz
scripts/deploy.py --image URI --job JOB --name byoc-dogs             the model of a training job, under a name of yours
scripts/deploy.py --image URI --job JOB2 --name byoc-dogs --update   a new model at the same endpoint
scripts/deploy.py --attach byoc-dogs                                 wait for it again
scripts/deploy.py --image URI --model-data S3 --dry-run              print the requests as JSON, send nothing
scripts/deploy.py --local --model-data local_test/out/model/model.tar.gz     no account: a server here, until Ctrl-C

The image has to be in ECR (scripts/push.sh serve prints its URI), with --local on this machine. An artifact that it
cannot serve is refused before anything is created. An endpoint is billed for as long as it exists:
scripts/cleanup.py NAME removes it.
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

from scripts.aws import instances, names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.requests import check, show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import integer, progress
from scripts.endpoints import deployment, model_data, rollout
from scripts.endpoints.deployment import STRATEGIES, Deployment

PROGRAM = "deploy.py"


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    chosen = settings.load(flags)
    _check_together(flags)
    environment = command.key_values(flags.environment, "--environment")
    if environment.get("SAGEMAKER_MULTI_MODEL", "").strip().lower() == "true":
        several = "a server that waits for several models would answer every request with 404"
        raise CloudError(f"--environment SAGEMAKER_MULTI_MODEL=true: this is an endpoint of one model; {several}", 2)
    if flags.local:
        from scripts.endpoints import local_endpoint

        return local_endpoint.run(flags, chosen, environment)
    region = chosen.need_region()
    if flags.attach:
        endpoint = rollout.attach(chosen.aws(), names.checked(flags.attach, "--attach"))
        return _report(
            {
                "endpoint": endpoint.name,
                "status": endpoint.status,
                "region": region,
                "configuration": endpoint.configuration,
            },
            as_json=flags.json,
        )
    wanted = deployment.from_flags(flags, chosen, region, environment)
    if flags.dry_run:
        print(show(deployment.requests(wanted, flags, chosen), allow_unknown=chosen.allow_unknown))
        return 0
    return _deploy(chosen.aws(), wanted, flags, chosen)


def _deploy(aws: Aws, wanted: Deployment, flags: argparse.Namespace, chosen: Settings) -> int:
    begun = time.monotonic()
    if flags.job:
        wanted = replace(wanted, model_data=rollout.model_of(aws, flags.job))
    for request in deployment.requests(wanted, flags, chosen):
        check(request, allow_unknown=chosen.allow_unknown)
    before = None
    if flags.update:
        before = rollout.need_updatable(aws, wanted.endpoint, chosen.project, flags.instance_type)
        wanted = replace(wanted, instance_count=flags.instance_count or before.instance_count)
        deployment.check_strategy(flags.strategy, wanted.instance_count)
    requests = deployment.requests(wanted, flags, chosen)
    if not before:
        rollout.need_free(aws, wanted, requests)
    model_data.need_servable(aws, wanted.image, wanted.model_data, wanted.environment)
    rollout.send_all(aws, requests)
    status = "Updating" if before else "Creating"
    try:
        cost = instances.describe(wanted.instance_type, wanted.instance_count, aws.region)
        progress(f"{status.lower()} the endpoint {wanted.endpoint}; {cost}")
        progress(f"remove it with: scripts/cleanup.py {wanted.endpoint} --region {aws.region}")
        if not flags.no_wait:
            status = rollout.wait_in_service(aws, wanted, requests, update=flags.update).status
    except KeyboardInterrupt:
        raise rollout.goes_on(wanted.endpoint, aws.region) from None
    removed = rollout.prune(aws, before, chosen.project) if before and flags.prune else []
    if before and not removed:
        progress(
            f"before, it served the configuration {before.name} (models: {', '.join(before.models)}), which costs"
            " nothing; scripts/cleanup.py --unused removes it, as --prune does"
        )
    price = instances.price(wanted.instance_type, aws.region).hourly
    result = {
        "endpoint": wanted.endpoint,
        "status": status,
        "region": aws.region,
        "configuration": wanted.name,
        "model": wanted.name,
        "image": wanted.image,
        "model_data": str(wanted.model_data),
        "instance_type": wanted.instance_type,
        "instance_count": wanted.instance_count,
        "usd_per_hour": None if price is None else price * wanted.instance_count,
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


def _check_together(flags: argparse.Namespace) -> None:
    """Raises CloudError for flags that contradict each other."""
    changes = flags.prune or flags.alarm or flags.strategy != STRATEGIES[0]
    for wrong, complaint in (
        (flags.model_data and flags.job, "--model-data and --job: give one of them"),
        (
            flags.local and (flags.update or flags.attach or flags.job or flags.dry_run),
            "--local serves a --model-data here: no --job, --update, --attach or --dry-run with it",
        ),
        (flags.port is not None and not flags.local, "--port goes with --local"),
        (flags.update and not flags.name, "--update needs the --name of the endpoint"),
        (changes and not flags.update, "--prune, --strategy and --alarm go with --update"),
        (
            flags.prune and flags.no_wait,
            "--prune removes what served before once the new one serves: it cannot be combined with --no-wait",
        ),
        (
            flags.attach and (flags.image or flags.dry_run),
            "--attach waits for an endpoint that exists: it cannot be combined with --image or --dry-run",
        ),
    ):
        if wrong:
            raise CloudError(complaint, 2)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    what = parser.add_argument_group("model (required: --model-data or --job, and --image except with --local)")
    what.add_argument("--image", metavar="URI", help="the serving image, in ECR; with --local one on this machine")
    what.add_argument("--model-data", metavar="S3", help="model.tar.gz in S3; with --local also a file")
    what.add_argument("--job", metavar="NAME", help="in place of --model-data: the training job that made it")
    one = parser.add_argument_group("endpoint")
    one.add_argument("--name", help="of the endpoint (default: PROJECT and the time)")
    one.add_argument("--instance-type", metavar="TYPE", help=f"default: {deployment.INSTANCE_TYPE}")
    one.add_argument(
        "--instance-count", metavar="N", type=integer(1), help="default: 1, --update: as many as there are"
    )
    one.add_argument(
        "--environment", metavar="KEY=VALUE", action="append", default=[], help="for the server; repeatable"
    )
    one.add_argument("--network-isolation", action="store_true", help="the container gets no network")
    seconds = integer(60, 3600)
    one.add_argument("--startup-timeout", metavar="S", type=seconds, default=600, help="until /ping is 200 (600)")
    one.add_argument("--download-timeout", metavar="S", type=seconds, default=600, help="for model.tar.gz (600)")
    changes = parser.add_argument_group("changing an endpoint that exists")
    changes.add_argument("--update", action="store_true", help="give the endpoint --name this model and configuration")
    changes.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="how the instances change over")
    changes.add_argument("--wait-interval", metavar="S", type=integer(0, 3600), default=300, help="between steps (300)")
    changes.add_argument("--alarm", metavar="NAME", action="append", default=[], help="CloudWatch alarm: roll back")
    changes.add_argument("--prune", action="store_true", help="then remove the configuration and model from before")
    here = parser.add_argument_group("on this machine")
    here.add_argument("--local", action="store_true", help="serve through the SDK's local mode; needs no account")
    here.add_argument("--port", type=integer(1, 65535), metavar="N", help="for --local (default: a free one)")
    how = parser.add_argument_group("how")
    how.add_argument("--attach", metavar="NAME", help="wait for an endpoint that is being created or changed")
    how.add_argument("--no-wait", action="store_true", help="end as soon as it is being created")
    how.add_argument("--wait", dest="no_wait", action="store_false", help="until it serves (default)")
    how.add_argument("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    how.add_argument("--json", action="store_true", help="print the result as JSON")
    settings.add_flags(parser, "role", "bucket", "project", "tags", "subnets", "security_groups", "volume_kms_key")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
