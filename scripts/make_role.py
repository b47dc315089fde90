#!/usr/bin/env python3
"""Make the execution role SageMaker assumes for training jobs and endpoints, with no more rights than they need.

Done once, by a person who may create roles (scripts/iam/admin.json). A second call brings its rights up to date.

scripts/make_role.py                              makes PROJECT-sagemaker, prints its ARN
scripts/make_role.py --subnets subnet-1 --security-groups sg-1         with the rights that a VPC needs
scripts/make_role.py --account 123456789012 --region eu-central-1 --dry-run      prints the requests, sends nothing
scripts/make_role.py --delete                     removes it
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL")

import contextlib
import re
from collections.abc import Sequence

from scripts.aws import roles, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import PROJECT_TAG, tag_map
from scripts.aws.requests import Request, send, show
from scripts.aws.settings import Settings
from scripts.console import command

PROGRAM = "make_role.py"


def main(arguments: Sequence[str]) -> int:
    parser = command.parser(PROGRAM, __doc__ or "")
    parser.add_argument("--name", help="of the role (default: PROJECT-sagemaker)")
    parser.add_argument("--account", metavar="N", help="for --dry-run, which asks AWS nothing (default: the role's)")
    parser.add_argument("--delete", action="store_true", help="remove the role")
    parser.add_argument("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    settings.add_flags(parser, *settings.RESOURCE_KEYS)
    flags = parser.parse_args(arguments)
    chosen = settings.load(flags)
    chosen.need_region()
    name = flags.name or f"{chosen.project}-sagemaker"
    if flags.account and not re.fullmatch(r"\d{12}", flags.account):
        raise CloudError(f"--account has value {flags.account!r}: expected twelve digits", 2)
    if flags.dry_run:
        account = flags.account or (chosen.role.account if chosen.role else None)
        if account is None:
            raise CloudError("--dry-run asks AWS nothing: give --account, or a --role of the account", 2)
        partition = chosen.role.partition if chosen.role else "aws"
        print(show(_removal(name) if flags.delete else roles.requests(name, chosen, partition, account)))
        return 0
    aws = chosen.aws()
    if flags.delete:
        return _delete(aws, name, chosen)
    create, put = roles.requests(name, chosen, aws.identity.partition, aws.identity.account)
    iam = aws.client("iam")
    try:
        send(aws, create)
        command.progress(f"created the role {name}")
    except iam.exceptions.EntityAlreadyExistsException:
        _need_own(aws, name, chosen)
        command.progress(f"the role {name} already exists; bringing its rights up to date")
    send(aws, put)
    arn = iam.get_role(RoleName=name)["Role"]["Arn"]
    command.progress(f'byoc.toml may hold it: role = "{arn}"')
    print(arn)
    return 0


def _removal(name: str) -> list[Request]:
    return [
        Request("iam", "DeleteRolePolicy", {"RoleName": name, "PolicyName": roles.POLICY_NAME}),
        Request("iam", "DeleteRole", {"RoleName": name}),
    ]


def _delete(aws: Aws, name: str, chosen: Settings) -> int:
    iam = aws.client("iam")
    try:
        _need_own(aws, name, chosen)
    except iam.exceptions.NoSuchEntityException:
        command.progress(f"there is no role {name}: nothing to do")
        return 0
    for request in _removal(name):
        # Removed already, by a call that broke off or by a first try whose answer was lost.
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            send(aws, request)
    command.progress(f"removed the role {name}")
    return 0


def _need_own(aws: Aws, name: str, chosen: Settings) -> None:
    """Raises CloudError where the role was not made by this project."""
    tags = tag_map(aws.client("iam").get_role(RoleName=name)["Role"].get("Tags", []))
    if tags.get(PROJECT_TAG) != chosen.project:
        raise CloudError(f"the role {name} has no tag {PROJECT_TAG}={chosen.project}: give another --name")


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
