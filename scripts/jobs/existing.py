"""A job or a search that exists: --attach and --stop of scripts, and their other flags on how to go on."""

import argparse
import json
from collections.abc import Collection, Sequence

from botocore.exceptions import ClientError

from scripts.aws import names, requests, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of, message_of
from scripts.aws.requests import Request, send
from scripts.console.command import progress
from scripts.jobs import training_jobs, watch


def flags(parser: argparse.ArgumentParser, what: str, local: str, stopping: str) -> None:
    group = parser.add_argument_group("how")
    one = group.add_mutually_exclusive_group().add_argument
    one("--wait", action="store_true", default=True, help="follow it to its end (default)")
    one("--no-wait", dest="wait", action="store_false", help="end as soon as it is created")
    how = group.add_argument
    how("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    how("--json", action="store_true", help="print one JSON object at the end")
    how("--local", action="store_true", help=local)
    how("--attach", metavar="NAME", help=f"follow this {what}")
    how("--stop", metavar="NAME", help=f"stop this {what}{stopping}")


def named(
    given: argparse.Namespace,
    rest: Sequence[str],
    plain: argparse.Namespace,
    what: str,
    longest: int = names.MAX_NAME,
    also: Collection[str] = (),
) -> str:
    """The name that --attach or --stop gives; `plain`: the flags of a call without any, `also`: more that go with it.

    Raises CloudError for flags of a new job.
    """
    if given.attach and given.stop:
        raise CloudError("--attach and --stop cannot be combined", 2)
    doing = "--attach" if given.attach else "--stop"
    known = {"attach", "stop", "wait", "json", "config", "region", "allow_unknown", *settings.RESOURCE_KEYS, *also}
    wrong = [key for key, value in vars(given).items() if key not in known and value != getattr(plain, key)]
    if rest or wrong:
        other = rest[0] if rest else f"--{wrong[0].replace('_', '-')}"
        raise CloudError(f"{doing} is for a {what} that exists, and {other} for a new one", 2)
    return names.checked(given.attach or given.stop, doing, longest)


def stop(aws: Aws, noun: str, name: str, what: str, program: str, effect: str, *, as_json: bool) -> int:
    """Have it stopped unless it has ended, and say so; `noun` as in StopTrainingJob, `what` and `effect` for people."""
    job = requests.need(aws, noun, name, what)
    if job[f"{noun}Status"] == "InProgress":
        try:
            send(aws, Request("sagemaker", f"Stop{noun}", {f"{noun}Name": name}))
        except ClientError as error:
            if not is_stopped(error):
                raise
            job = requests.need(aws, noun, name, what)
    status = job[f"{noun}Status"]
    if status in training_jobs.IN_PROGRESS:
        status = "Stopping"
        progress(f"{name} is being stopped{effect}")
        progress(f"  follow it: {watch.attach(name, aws.region, program)}")
    else:
        progress(f"{name} has ended already: {status}")
        if training_jobs.has_warm_pool(job):
            send(aws, training_jobs.release(name))
            progress("  the instances that it kept (--keep-alive) are given back")
    if as_json:
        print(json.dumps({"name": name, "status": status}))
    return 0


def is_stopped(error: ClientError) -> bool:
    """Tell whether stopping a job failed because it has ended meanwhile, or is stopping and the answer was lost."""
    return code_of(error) == "ValidationException" and "status" in message_of(error).lower()


def leave(name: str, region: str, program: str, *, as_json: bool) -> int:
    """Say of what was created how it is followed later."""
    progress(f"  follow it: {watch.attach(name, region, program)}\n  stop it:   {watch.stop(name, region, program)}")
    print(json.dumps({"name": name, "status": "InProgress"}) if as_json else name)
    return 0
