"""The flags of deploy.py, grouped by what they are for, and which of them cannot be combined."""

import argparse

from container_serve.settings import PAGE
from scripts.aws import settings
from scripts.aws.errors import CloudError
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import integer, number
from scripts.endpoints import modes, scaling
from scripts.endpoints.deployment import STRATEGIES, TIMEOUT
from scripts.monitoring import alarms


def parser(program: str, description: str) -> argparse.ArgumentParser:
    made = command.parser(program, description)
    what = made.add_argument_group("model (required: --model-data or --job, and --image except with --local)")
    add_model(what)
    _registry(made)
    one = made.add_argument_group("endpoint")
    one.add_argument("--name", help="of the endpoint (default: PROJECT and the time)")
    one.add_argument("--instance-count", metavar="N", type=integer(1), help="1; --update: as many as there are")
    add_server(one)
    seconds = integer(60, 3600)
    one.add_argument("--startup-timeout", metavar="S", type=seconds, help=f"until /ping is 200 ({TIMEOUT})")
    one.add_argument("--download-timeout", metavar="S", type=seconds, help=f"for model.tar.gz ({TIMEOUT})")
    _modes(made)
    _operations(made)
    changes = made.add_argument_group("changing an endpoint that exists")
    changes.add_argument("--update", action="store_true", help="give the endpoint --name this model and configuration")
    changes.add_argument("--strategy", choices=STRATEGIES, help="how the instances change over (all-at-once)")
    changes.add_argument("--wait-interval", metavar="S", type=integer(0, 3600), default=300, help="between steps (300)")
    changes.add_argument("--alarm", metavar="NAME", action="append", default=[], help="CloudWatch alarm: roll back")
    changes.add_argument("--prune", action="store_true", help="then remove the configuration and model from before")
    here = made.add_argument_group("on this machine")
    here.add_argument("--local", action="store_true", help="serve through the SDK's local mode; needs no account")
    here.add_argument("--page", action="store_true", help="for --local: a page to try the model in a browser")
    here.add_argument("--port", type=integer(1, 65535), metavar="N", help="for --local (default: a free one)")
    how = made.add_argument_group("how")
    how.add_argument("--attach", metavar="NAME", help="wait for an endpoint that is being created or changed")
    waits = how.add_mutually_exclusive_group()
    waits.add_argument("--no-wait", action="store_true", help="end as soon as it is being created")
    waits.add_argument("--wait", dest="no_wait", action="store_false", help="until it serves (default)")
    how.add_argument("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    how.add_argument("--json", action="store_true", help="print the result as JSON")
    settings.add_flags(made, *settings.RESOURCE_KEYS)
    return made


def add_model(group: "argparse._ArgumentGroup") -> None:
    """The flags that say what is served."""
    group.add_argument("--image", metavar="URI", help="the serving image, in ECR; with --local one on this machine")
    group.add_argument("--model-data", metavar="S3", help="model.tar.gz in S3; with --local also a file")
    group.add_argument("--job", metavar="NAME", help="in place of --model-data: the training job that made it")


def _registry(made: argparse.ArgumentParser) -> None:
    versions = made.add_argument_group("model registry").add_argument
    versions("--register", metavar="GROUP", help="make a version of image and model there, in place of an endpoint")
    versions("--approve", metavar="GROUP[:N]", help="approve version N, or the newest one that waits for it")
    versions("--model-package", metavar="GROUP[:N]", help="serve the newest approved version, or approved version N")


def add_server(group: "argparse._ArgumentGroup") -> None:
    """The flags of what the server runs on and in."""
    kinds = f"default: {modes.INSTANCE_TYPE}; of an endpoint also TYPE,TYPE,...: the first that the service has"
    group.add_argument("--instance-type", metavar="TYPE", help=kinds)
    group.add_argument("--environment", metavar="KEY=VALUE", action="append", default=[], help="for the server")
    group.add_argument("--network-isolation", action="store_true", help="the container gets no network")


def _modes(made: argparse.ArgumentParser) -> None:
    sizes = ", ".join(map(str, modes.MEMORY_SIZES))
    serverless = made.add_argument_group("serverless: no instances, nothing to pay when idle").add_argument
    serverless("--serverless", metavar="MEMORY_MB", type=integer(1), choices=modes.MEMORY_SIZES, help=f"one of {sizes}")
    most = f"requests at once (serverless: to 200, default {modes.MAX_CONCURRENCY}; --async: per instance)"
    serverless("--max-concurrency", metavar="N", type=integer(1, 1000), help=most)
    serverless("--provisioned", metavar="N", type=integer(1, 200), help="kept ready, and billed")
    queue = made.add_argument_group("asynchronous: requests wait in a queue, answers go to S3")
    queue.add_argument("--async", dest="asynchronous", metavar="S3", help="prefix for the answers")
    queue.add_argument("--success-topic", metavar="ARN", help="SNS topic that is told of each answer")
    queue.add_argument("--error-topic", metavar="ARN", help="SNS topic that is told of each failure")
    several = made.add_argument_group("several models behind one endpoint")
    several.add_argument("--multi-model", metavar="S3", help="prefix of the models, each one NAME.tar.gz")
    several.add_argument("--add", nargs=2, metavar=("NAME", "MODEL"), help="put a model.tar.gz (S3, file) there")
    several.add_argument("--remove", metavar="NAME", help="take a model away from there")
    scaled = made.add_argument_group("autoscaling (with --async to zero)")
    scaled.add_argument("--min-instances", metavar="N", type=integer(0), help="default: 1, with --async 0")
    scaled.add_argument("--max-instances", metavar="N", type=integer(1), help="turns autoscaling on")
    load = f"requests per instance and minute ({scaling.TARGET}); --async: waiting ones ({scaling.BACKLOG})"
    scaled.add_argument("--target", metavar="N", type=integer(1), help=load)
    when = "other bounds from then on, such as 'cron(0 8 ? * MON-FRI *)=2,6'; repeatable; replaces those of before"
    scaled.add_argument("--schedule", metavar="WHEN=MIN,MAX", action="append", default=[], help=when)
    scaled.add_argument("--timezone", metavar="ZONE", help="of --schedule, such as Europe/Berlin (default: UTC)")


def _operations(made: argparse.ArgumentParser) -> None:
    watched = made.add_argument_group("watching it")
    usual, high = alarms.LATENCY_MS, integer(1, 60_000)
    watching = f"alarms: failed requests, p90 over MS ({usual}), a full disk; updates roll back by them"
    watched.add_argument("--alarms", metavar="MS", type=high, nargs="?", const=usual, help=watching)
    watched.add_argument("--alarm-topic", metavar="ARN", help="SNS topic that is told of alarms")
    watched.add_argument("--dashboard", action="store_true", help="a CloudWatch dashboard")
    watched.add_argument("--capture", metavar="PERCENT", type=integer(1, 100), help="requests and answers kept in S3")
    watched.add_argument("--capture-to", metavar="S3", help="prefix for them (default: BUCKET/PROJECT/captured)")
    watched.add_argument("--shadow", metavar="S3|JOB", help="a model that gets a copy of each request, on 1 instance")
    money = made.add_argument_group("money")
    money.add_argument("--max-usd-per-day", metavar="USD", type=number, help="refuse what may cost more")


def environment(flags: argparse.Namespace) -> dict[str, str]:
    """Return the variables for the server. Raises CloudError."""
    found = command.key_values(flags.environment, "--environment")
    if found.get("SAGEMAKER_MULTI_MODEL", "").strip().lower() == "true":
        several = "a server that waits for several would answer every request with 404; endpoints take --multi-model"
        raise CloudError(f"--environment SAGEMAKER_MULTI_MODEL=true: this serves one model; {several}", 2)
    if not flags.local and found.get(PAGE, "").strip().lower() == "true":
        raise CloudError(f"--environment {PAGE}=true: an endpoint on AWS has no page: leave it out, or add --local", 2)
    return found


_ONE, _GIVE_ONE, _NO_SHADOW = "an endpoint has one mode", "give one of them", "the service has no shadow variants there"
_MODES = "serverless asynchronous multi_model max_instances schedule"
_WATCHING = "alarms dashboard capture shadow max_usd_per_day"
_NO_ENDPOINT = {f"name update attach {_MODES} {_WATCHING}": "it makes no endpoint"}
_STORED = {f"name update attach {_WATCHING}": "it changes the models below --multi-model, not an endpoint"}
# What a flag cannot be combined with, and why.
_REFUSED: dict[str, dict[str, str]] = {
    "local": {
        "job update attach dry_run": "it serves a --model-data here",
        _MODES: "it serves one model here",
        "register approve model_package": "it knows no model registry",
        _WATCHING: "that is for an endpoint in SageMaker",
    },
    "serverless": {
        "asynchronous multi_model": _ONE,
        "instance_type instance_count": "it has no instances; its size is MEMORY_MB",
        "min_instances max_instances target": "it scales by itself, up to --max-concurrency",
        "network_isolation": "the service has no network isolation there",
        "startup_timeout download_timeout": "the service always gives it 180 s to get ready",
        "capture": "the service captures no data there",
        "shadow": _NO_SHADOW,
        "strategy": "it has no instances to replace",
    },
    "asynchronous": {"multi_model": _ONE, "shadow": _NO_SHADOW},
    "add": {"remove": _GIVE_ONE, **_STORED},
    "remove": _STORED,
    "multi_model": {
        "model_data job model_package": "its models are below the prefix; --add puts one there",
        "shadow": _NO_SHADOW,
    },
    "model_data": {"job": _GIVE_ONE},
    "model_package": {"register approve": _GIVE_ONE, "image model_data job": "it says which image and model"},
    "register": {"approve": _GIVE_ONE, **_NO_ENDPOINT},
    "approve": _NO_ENDPOINT,
    "attach": {
        "capture shadow max_usd_per_day": "it changes no configuration: give --update in its place",
        "image model_data job name update serverless asynchronous multi_model dry_run": "it waits for one that exists",
    },
    "no_wait": {
        "prune": "what served before is removed once the new one serves",
        "max_instances alarms dashboard": "that needs an endpoint that serves",
    },
}
# The flags of which a flag needs one.
_ONLY_FOR = {
    "provisioned": "serverless",
    "max_concurrency": "serverless asynchronous",
    "success_topic": "asynchronous",
    "error_topic": "asynchronous",
    "add": "multi_model",
    "remove": "multi_model",
    "capture_to": "capture",
    "shadow": "image",
    "alarm_topic": "alarms",
    "timezone": "schedule",
    **dict.fromkeys(("min_instances", "target", "schedule"), "max_instances"),
    "port": "local",
    "page": "local",
    "update": "name",
    "prune": "update",
    "alarm": "update",
    "strategy": "update",
}


def check(flags: argparse.Namespace, chosen: Settings) -> None:
    """Raises CloudError for flags that cannot be combined."""

    def given(name: str) -> bool:
        return getattr(flags, name) not in (None, [], "") and getattr(flags, name) is not False

    for flag, refused in _REFUSED.items():
        for others, why in refused.items() if given(flag) else ():
            if other := next(filter(given, others.split()), None):
                raise CloudError(f"{_name(flag)} cannot be combined with {_name(other)}: {why}", 2)
    for flag, needed in _ONLY_FOR.items():
        if given(flag) and not any(map(given, needed.split())):
            raise CloudError(f"{_name(flag)} goes with {' or '.join(map(_name, needed.split()))}", 2)
    command.refuse(
        (
            flags.shadow and flags.strategy == "rolling",
            "--shadow cannot be combined with --strategy rolling: the service takes one variant there",
        ),
        (
            flags.serverless and chosen.subnets,
            "--serverless cannot be combined with --subnets: the service has no VPC there (byoc.toml may have them)",
        ),
    )


def _name(flag: str) -> str:
    return "--async" if flag == "asynchronous" else f"--{flag.replace('_', '-')}"
