#!/usr/bin/env python3
"""Remove what these scripts have made in the account; with nothing to remove given, list it.

scripts/cleanup.py                          list everything of the project, with what it costs an hour
scripts/cleanup.py byoc-dogs                an endpoint, its configurations and models
scripts/cleanup.py --all                    all endpoints, configurations and models of the project
scripts/cleanup.py --all --jobs --data --repositories --yes       and stop its jobs, empty its S3 prefix and ECR
scripts/cleanup.py --unused                 configurations and models that nothing uses any more
scripts/cleanup.py byoc-dogs --dry-run      print the requests as JSON, send nothing

Only what bears the tag byoc-project=PROJECT goes; in S3, where objects have none, what an upload's manifest or a tagged
job accounts for. What anything else in the account uses stays, whoever made that: it says who uses it. It lists what
goes, and asks, or wants --yes where there is no terminal. Endpoints go first.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "tqdm")

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.names import S3Uri
from scripts.aws.requests import show
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.console.text import table
from scripts.endpoints import deployment, lookup
from scripts.resources import belongings, inventory, removal, usage
from scripts.resources.belongings import Belonging
from scripts.resources.inventory import CONFIGURATION, ENDPOINT, JOB, MODEL, REPOSITORY, SEARCH, Inventory, Thing

PROGRAM = "cleanup.py"


@dataclass
class Account:
    """What there is of the project: in SageMaker and ECR, and in S3; `unseen`: what cannot be seen, and why."""

    things: Inventory = field(default_factory=Inventory)
    stored: list[Belonging] = field(default_factory=list)
    foreign: list[tuple[S3Uri, int]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)


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
    selected = flags.names or flags.all or flags.unused or flags.jobs or flags.data or flags.repositories
    account = _look(aws, chosen, flags, everything=not selected or flags.all)
    if not selected:
        return _list(account, flags, chosen)
    strange = [name for name in flags.names if not account.things.of_endpoint(name)]
    complaints = [_why_not(aws, account, name, chosen) for name in strange]
    doomed, stored = _unneeded(aws, account, flags, complaints)
    if doomed or stored:
        for line in complaints:
            progress(line)
        progress(_table(doomed, stored))
        if not _confirmed(flags, len(doomed) + len(stored)):
            progress("nothing was removed")
            return 1
        doomed = removal.remove(aws, doomed, progress)
        used = usage.kept(aws, stored)
        stored = [belonging for belonging in stored if belonging not in used]
        for belonging in stored:
            belongings.delete(aws, belonging, lambda _: None)
            progress(f"deleted {len(belonging.keys)} objects of {belonging.uri}")
    elif not complaints:
        progress("nothing to remove")
    _report(flags, chosen, doomed, account, stored)
    # Again at the end: what lies between takes minutes.
    for line in complaints:
        progress(f"{PROGRAM}: {line}")
    return 1 if complaints else 0


def _dry_run(flags: argparse.Namespace, chosen: Settings) -> int:
    """What can be known offline: an endpoint, and the configuration and model that it was made with."""
    if not flags.names or flags.unused or flags.jobs or flags.data or flags.repositories:
        raise CloudError("--dry-run asks AWS nothing and so needs NAMEs; without --yes this lists first, and asks", 2)
    requests = []
    for name in flags.names:
        base = deployment.resource_name(name, chosen.project)
        requests += [
            inventory.removal(ENDPOINT, name),
            inventory.removal(CONFIGURATION, base),
            inventory.removal(MODEL, base),
        ]
    print(show(requests))
    return 0


def _look(aws: Aws, chosen: Settings, flags: argparse.Namespace, *, everything: bool) -> Account:
    """What was asked for, and with `everything` the rest too, as far as it may be seen."""
    account = Account()

    def add(found: Inventory) -> None:
        account.things.own += found.own
        account.things.foreign += found.foreign

    def look(wanted: bool, what: str, find: Callable[[], None]) -> None:
        if not wanted and not everything:
            return
        try:
            find()
            account.seen.append(what)
        except (ClientError, BotoCoreError) as error:
            # No network and no credentials are the same for all of them: said once.
            if wanted or (isinstance(error, BotoCoreError) and not account.seen):
                raise
            account.unseen[what] = str(explain(error))

    def look_into_s3() -> None:
        bucket = chosen.bucket or names.default_bucket(aws.region, aws.identity.account)
        found = belongings.find(aws, S3Uri(bucket, chosen.project), chosen.project)
        account.stored, account.foreign = found.own, found.foreign

    serving = bool(flags.names or flags.all or flags.unused or flags.data)
    project = chosen.project
    look(serving, "endpoints, configurations, models", lambda: add(inventory.serving(aws, project)))
    look(flags.jobs, "tuning jobs, training jobs", lambda: add(inventory.training(aws, project)))
    look(flags.repositories, "repositories", lambda: add(inventory.repositories(aws, project)))
    look(flags.data, "S3", look_into_s3)
    return account


def _asked(account: Account, flags: argparse.Namespace) -> list[Thing]:
    """The resources that were asked for by name or kind."""
    things = account.things
    chosen: list[Thing] = []
    if flags.all:
        chosen += things.of(ENDPOINT, CONFIGURATION, MODEL)
    for name in flags.names:
        chosen += things.of_endpoint(name)
    if flags.jobs:
        chosen += things.of(SEARCH, JOB)
    if flags.repositories:
        chosen += things.of(REPOSITORY)
    return chosen


def _unneeded(
    aws: Aws, account: Account, flags: argparse.Namespace, complaints: list[str]
) -> tuple[list[Thing], list[Belonging]]:
    """The resources asked for that nothing which stays uses, in the order of removal: first those that cost."""
    asked: list[Thing | Belonging] = [*_asked(account, flags), *(account.stored if flags.data else [])]
    unused = account.things.of(CONFIGURATION, MODEL) if flags.unused else []
    wanted: list[Thing | Belonging] = list(dict.fromkeys([*asked, *unused]))
    try:
        kept = usage.kept(aws, wanted)
    except (ClientError, BotoCoreError) as error:
        left = [thing for thing in wanted if usage.can_be_used(thing)]
        complaints.append(f"left: {', '.join(map(str, left))}: cannot see what uses them: {explain(error)}")
    else:
        left = list(kept)
        for thing in asked:
            if thing in kept:
                progress(f"left: {thing}, which {kept[thing]} uses")
    going = [thing for thing in wanted if thing not in left]
    order = [SEARCH, JOB, ENDPOINT, CONFIGURATION, MODEL, REPOSITORY]
    things = sorted((thing for thing in going if isinstance(thing, Thing)), key=lambda thing: order.index(thing.kind))
    return things, [thing for thing in going if isinstance(thing, Belonging)]


def _why_not(aws: Aws, account: Account, name: str, chosen: Settings) -> str:
    if any(thing.name == name for thing in account.things.foreign) or lookup.find(aws, name):
        return f"left: {name}, which has no tag {names.PROJECT_TAG}={chosen.project}: these scripts did not make it"
    things = account.things.own
    there = {thing.name for thing in things if thing.kind == ENDPOINT} | {thing.endpoint or "" for thing in things}
    close = get_close_matches(name, there - {""}, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "without a name, this lists what there is"
    return f"there is no endpoint {name} of the project {chosen.project} in {aws.region} (any more): {hint}"


def _confirmed(flags: argparse.Namespace, count: int) -> bool:
    if flags.yes:
        return True
    if not sys.stdin.isatty():
        raise CloudError(f"{count} things would be removed: say --yes where there is no terminal to ask on", 2)
    print(f"Remove these {count}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _list(account: Account, flags: argparse.Namespace, chosen: Settings) -> int:
    if flags.json:
        found = _dicts(account.things.own, account.stored)
        print(json.dumps({"found": found, "unseen": account.unseen}, indent=2))
    elif account.things.own or account.stored:
        print(_table(account.things.own, account.stored))
        hourly = sum(thing.usd_per_hour or 0 for thing in account.things.own)
        print(f"in all about {hourly:.2f} USD an hour, as far as prices are known; S3 and ECR cost by the GB and month")
    elif not account.unseen:
        print(f"nothing of the project {chosen.project} is there")
    elif account.seen:
        print(f"nothing of the project {chosen.project} is among: {'; '.join(account.seen)}")
    _name_foreign(account, chosen)
    progress(f"not looked for: {_role(chosen)}")
    _name_unseen(account)
    return 1 if account.unseen else 0


def _table(things: Sequence[Thing], stored: Sequence[Belonging]) -> str:
    rows = [
        (
            thing.kind,
            thing.name,
            thing.status,
            thing.created.strftime("%Y-%m-%d %H:%M") if thing.created else "",
            "" if thing.usd_per_hour is None else f"{thing.usd_per_hour:.3f}",
            thing.detail,
        )
        for thing in things
    ]
    rows += [
        (one.kind, str(one.uri), "", "", "", f"{len(one.keys)} objects, {one.bytes / 1e6:,.1f} MB") for one in stored
    ]
    return table(("kind", "name", "status", "created", "USD/hour", ""), rows)


def _report(
    flags: argparse.Namespace,
    chosen: Settings,
    removed: Sequence[Thing],
    account: Account,
    deleted: Sequence[Belonging],
) -> None:
    """What has gone, and what has not."""
    left = [thing for thing in account.things.own if thing not in removed]
    stored = [belonging for belonging in account.stored if belonging not in deleted]
    for thing in left:
        if thing.usd_per_hour is not None or thing.kind in (SEARCH, JOB):
            progress(f"left, and costing: {thing.kind} {thing.name}")
    if flags.all:
        for thing in left:
            if thing.kind == REPOSITORY:
                progress(f"left: repository {thing.name} (--repositories removes it)")
        for belonging in stored:
            progress(f"left: {belonging.uri}, {belonging.bytes / 1e6:,.1f} MB (--data removes it)")
    for thing in removed:
        if thing.kind == ENDPOINT:
            progress(f"left: the log group {lookup.LOG_GROUP.format(thing.name)}")
    if removed or deleted:
        progress(
            "left as well: other log groups below /aws/sagemaker, the bucket itself, the history of training jobs,"
            f" {_role(chosen)}"
        )
    _name_unseen(account)
    if flags.json:
        result = {"removed": _dicts(removed, deleted), "left": _dicts(left, stored), "unseen": account.unseen}
        print(json.dumps(result, indent=2))


def _dicts(things: Sequence[Thing], stored: Sequence[Belonging]) -> list[dict[str, Any]]:
    return [*(thing.to_dict() for thing in things), *(belonging.to_dict() for belonging in stored)]


def _role(chosen: Settings) -> str:
    """Nobody but an administrator may ask whether it is there."""
    return f"the role {chosen.project}-sagemaker (scripts/make_role.py --delete removes it)"


def _name_unseen(account: Account) -> None:
    for what, why in account.unseen.items():
        progress(f"{what} cannot be seen: {why}")


def _name_foreign(account: Account, chosen: Settings) -> None:
    for thing in account.things.foreign:
        progress(
            f"{thing.kind} {thing.name} has no tag {names.PROJECT_TAG}: these scripts did not make it, and leave it"
        )
    for uri, count in account.foreign:
        progress(f"{uri}: {count} objects that these scripts cannot account for, and leave")


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    parser.add_argument("names", metavar="NAME", nargs="*", help="an endpoint, with its configurations and models")
    parser.add_argument("--all", action="store_true", help="all endpoints, configurations and models of the project")
    parser.add_argument("--unused", action="store_true", help="configurations and models that nothing uses")
    parser.add_argument("--jobs", action="store_true", help="stop the tuning and training jobs in progress")
    parser.add_argument("--data", "--s3", action="store_true", help="pictures, weights and jobs' results in S3")
    parser.add_argument("--repositories", action="store_true", help="ECR repositories, with their images")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="print the requests for NAMEs as JSON, send nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_flags(parser, "bucket", "project")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
