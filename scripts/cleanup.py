#!/usr/bin/env python3
"""Remove what these scripts have made in the account; without a NAME or a flag, list it.

scripts/cleanup.py                          list everything of the project, with what it costs an hour
scripts/cleanup.py byoc-dogs                an endpoint, its configurations and models
scripts/cleanup.py --all                    all endpoints, configurations and models of the project
scripts/cleanup.py --all --jobs --packages --data --repositories --yes    stop its jobs, empty registry, S3 and ECR
scripts/cleanup.py --unused                 configurations and models that nothing uses any more
scripts/cleanup.py byoc-dogs --dry-run      print the requests as JSON, send nothing

Only what has the tag byoc-project=PROJECT goes; in S3, where objects have none, what an upload's manifest or a tagged
job accounts for. What anything else in the account uses stays, and the script says who uses it. It lists what
it will remove, and asks; without a terminal it needs --yes. Endpoints are removed first.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "tqdm")

import argparse
import json
from collections.abc import Sequence

from scripts.aws import names, settings
from scripts.aws.errors import CloudError
from scripts.aws.requests import show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.endpoints import deployment, lookup
from scripts.resources import inventory, removal, usage
from scripts.resources.account import Account, dicts, table
from scripts.resources.assets import S3Asset
from scripts.resources.inventory import JOBS, Kind, Resource
from scripts.s3 import objects

PROGRAM = "cleanup.py"
MORE = ("jobs", "packages", "repositories", "data")  # kinds that go only when they are asked for


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    chosen = settings.load(flags)
    chosen.need_region()
    for name in flags.names:
        names.checked(name, "NAME")
    if flags.names and flags.all:
        raise CloudError("NAME and --all: give one of them", 2)
    if flags.dry_run:
        return _dry_run(flags, chosen)
    aws = chosen.aws()
    account = Account(aws, chosen)
    serving = bool(flags.names or flags.all or flags.unused or flags.data)
    more = {kind: getattr(flags, kind) for kind in MORE}
    selected = serving or any(more.values())
    account.look(serving=serving, **more, rest=not selected or flags.all)
    if not selected:
        return _list(account, flags)
    complaints = [account.why_not(name) for name in flags.names if not account.resources.of_endpoint(name)]
    to_delete, stored = account.unneeded(_asked(account, flags), complaints, unused=flags.unused)
    if to_delete or stored:
        for line in complaints:
            progress(line)
        progress(table(to_delete, stored))
        if not _confirmed(flags, len(to_delete) + len(stored)):
            progress("nothing was removed")
            return 1
        to_delete = removal.remove(aws, to_delete, progress)
        used = usage.kept(aws, stored)
        stored = [asset for asset in stored if asset not in used]
        for asset in stored:
            objects.delete(aws, asset.uri.bucket, asset.keys)
            progress(f"deleted {len(asset.keys)} objects of {asset}")
    elif not complaints:
        progress("nothing to remove")
    _report(account, flags, to_delete, stored)
    # Again at the end: what lies between takes minutes.
    for line in complaints:
        progress(f"{PROGRAM}: {line}")
    return 1 if complaints else 0


def _dry_run(flags: argparse.Namespace, chosen: Settings) -> int:
    """Return what is known offline: an endpoint, and the configuration and model that it was created with."""
    if not flags.names or flags.unused or any(getattr(flags, kind) for kind in MORE):
        raise CloudError("--dry-run asks AWS nothing and so needs NAMEs; without --yes this lists first, and asks", 2)
    requests = []
    for name in flags.names:
        base = deployment.resource_name(name, chosen.project)
        requests.append(inventory.removal(Kind.ENDPOINT, name))
        requests += [inventory.removal(kind, base) for kind in (Kind.CONFIGURATION, Kind.MODEL)]
    print(show(requests))
    progress("--dry-run: what was added since then only AWS knows; without --yes this lists it, and asks")
    return 0


def _asked(account: Account, flags: argparse.Namespace) -> list[Resource | S3Asset]:
    """The resources and assets that were asked for by name or kind."""
    found: list[Resource | S3Asset] = []
    for wanted, kinds in (
        (flags.all, (Kind.ENDPOINT, Kind.ALARM, Kind.DASHBOARD, Kind.CONFIGURATION, Kind.MODEL)),
        (flags.jobs, JOBS),
        (flags.packages, (Kind.PACKAGE, Kind.GROUP)),
        (flags.repositories, (Kind.REPOSITORY,)),
    ):
        found += account.resources.of(*kinds) if wanted else []
    for name in flags.names:
        found += account.resources.of_endpoint(name)
    return found + (list(account.stored) if flags.data else [])


def _confirmed(flags: argparse.Namespace, count: int) -> bool:
    if flags.yes:
        return True
    if not sys.stdin.isatty():
        raise CloudError(f"{count} things would be removed: say --yes where there is no terminal to ask on", 2)
    print(f"Remove these {count}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _list(account: Account, flags: argparse.Namespace) -> int:
    own = account.resources.own
    if flags.json:
        print(json.dumps({"found": dicts(own, account.stored), "unseen": account.unseen}, indent=2))
    elif own or account.stored:
        print(table(own, account.stored))
        hourly = sum(resource.usd_per_hour or 0 for resource in own)
        print(f"in all about {hourly:.2f} USD an hour, as far as prices are known; S3 and ECR cost by the GB and month")
    elif not account.unseen:
        print(f"nothing of the project {account.project} exists")
    elif account.seen:
        print(f"nothing of the project {account.project} is among: {'; '.join(account.seen)}")
    account.tell_unmanaged()
    progress(f"not looked for: {_role(account)}")
    account.tell_unseen()
    return 1 if account.unseen else 0


def _report(
    account: Account, flags: argparse.Namespace, removed: Sequence[Resource], deleted: Sequence[S3Asset]
) -> None:
    """The result: what was removed, and what was not."""
    left = [resource for resource in account.resources.own if resource not in removed]
    stored = [asset for asset in account.stored if asset not in deleted]
    for resource in left:
        if resource.usd_per_hour is not None or resource.kind in JOBS:
            progress(f"left, and billed: {resource}")
        elif flags.all and resource.kind == Kind.REPOSITORY:
            progress(f"left: {resource} (--repositories removes it)")
    for asset in stored if flags.all else ():
        progress(f"left: {asset}, {asset.bytes / 1e6:,.1f} MB (--data removes it)")
    for resource in removed:
        if resource.kind == Kind.ENDPOINT:
            progress(f"left: the log group {lookup.LOG_GROUP.format(resource.name)}")
    if removed or deleted:
        progress(f"left as well: log groups below /aws/sagemaker, the bucket, the history of jobs, {_role(account)}")
    account.tell_unseen()
    if flags.json:
        result = {"removed": dicts(removed, deleted), "left": dicts(left, stored), "unseen": account.unseen}
        print(json.dumps(result, indent=2))


def _role(account: Account) -> str:
    """Nobody but an administrator may ask whether it exists."""
    return f"the role {account.project}-sagemaker (scripts/make_role.py --delete removes it)"


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    what = parser.add_argument_group("what to remove (none: list)")
    what.add_argument("names", metavar="NAME", nargs="*", help="an endpoint, with all that was made for it")
    what.add_argument("--all", action="store_true", help="all endpoints, configurations and models of the project")
    what.add_argument("--unused", action="store_true", help="configurations and models that nothing uses")
    what.add_argument("--jobs", action="store_true", help="stop jobs in progress, and end warm pools")
    what.add_argument("--packages", action="store_true", help="model package groups, with their versions")
    what.add_argument("--data", "--s3", action="store_true", help="images, weights and jobs' results in S3")
    what.add_argument("--repositories", action="store_true", help="ECR repositories, with their Docker images")
    how = parser.add_argument_group("how")
    how.add_argument("--yes", action="store_true", help="do not ask")
    how.add_argument("--dry-run", action="store_true", help="print the requests for NAMEs as JSON, send nothing")
    how.add_argument("--json", action="store_true", help="print JSON")
    settings.add_flags(parser, "bucket", "project")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
