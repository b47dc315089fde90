"""The project's resources in SageMaker and ECR and its assets in S3, as far as they can be seen, and who uses them."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_test import text
from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.errors import explain
from scripts.aws.names import PROJECT_TAG, S3Uri
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints import lookup
from scripts.resources import assets, inventory, usage
from scripts.resources.assets import S3Asset
from scripts.resources.inventory import ORDER, Inventory, Kind, Resource


class Account:
    """`seen`: kinds that were looked at; `unseen`: kinds that cannot be seen, and why."""

    def __init__(self, aws: Aws, settings: Settings) -> None:
        self.aws, self.settings, self.project = aws, settings, settings.project
        self.resources = Inventory(self.project)
        self.stored: list[S3Asset] = []
        self.seen: list[str] = []
        self.unseen: dict[str, str] = {}
        self._of_others: list[tuple[S3Uri, int]] = []

    def look(self, *, serving: bool, jobs: bool, packages: bool, repositories: bool, data: bool, rest: bool) -> None:
        """Find the wanted kinds, and with `rest` the others too, as far as they may be seen.

        Raises botocore's errors of what is wanted.
        """
        for wanted, what, find in (
            (serving, "endpoints, configurations, models", inventory.serving),
            (jobs, "tuning jobs, training jobs, transform jobs, warm pools", inventory.training),
            (packages, "model packages", inventory.packages),
            (repositories, "repositories", inventory.repositories),
            (data, "S3", self._look_into_s3),
        ):
            if wanted or rest:
                self._try(find, what, wanted=wanted)
        if serving or rest:  # an endpoint goes without them, too
            self._try(inventory.watching, "alarms, dashboards", wanted=False)

    def _try(self, find: Callable[[Aws, Inventory], Any], what: str, *, wanted: bool) -> None:
        try:
            find(self.aws, self.resources)
            self.seen.append(what)
        except (ClientError, BotoCoreError) as error:
            # No network and no credentials are the same for all of them: said once.
            if wanted or (isinstance(error, BotoCoreError) and not self.seen):
                raise
            self.unseen[what] = str(explain(error))

    def _look_into_s3(self, aws: Aws, _: Inventory) -> None:
        bucket = self.settings.bucket or names.default_bucket(aws.region, aws.identity.account)
        self.stored, self._of_others = assets.find(aws, S3Uri(bucket, self.project), self.project)

    def unneeded(
        self, asked: Sequence[Resource | S3Asset], complaints: list[str], *, unused: bool
    ) -> tuple[list[Resource], list[S3Asset]]:
        """Those asked for that nothing which stays uses, in the order of removal.

        `unused`: configurations and models too that nothing uses. Where users cannot be seen, a complaint is
        added, and what could be used stays.
        """
        more = self.resources.of(Kind.CONFIGURATION, Kind.MODEL) if unused else []
        wanted: list[Resource | S3Asset] = list(dict.fromkeys([*asked, *more]))
        try:
            kept = usage.kept(self.aws, wanted)
        except (ClientError, BotoCoreError) as error:
            left = [one for one in wanted if one.kind in usage.USERS]
            complaints.append(f"left: {', '.join(map(str, left))}: cannot see what uses them: {explain(error)}")
        else:
            left = list(kept)
            for one in asked:
                if one in kept:
                    progress(f"left: {one}, which {kept[one]} uses")
        resources = [one for one in wanted if isinstance(one, Resource) and one not in left]
        stored = [one for one in wanted if isinstance(one, S3Asset) and one not in left]
        return sorted(resources, key=lambda one: ORDER.index(one.kind)), stored

    def why_not(self, name: str) -> str:
        """The reason why there is nothing to remove of an endpoint of this name."""
        if any(one.name == name for one in self.resources.unmanaged) or lookup.find(self.aws, name):
            return f"left: {name}, which has no tag {PROJECT_TAG}={self.project}: these scripts did not make it"
        own = self.resources.own
        known = {one.name for one in own if one.kind == Kind.ENDPOINT} | {one.endpoint for one in own if one.endpoint}
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "without a name, this lists what exists"
        return f"there is no endpoint {name} of the project {self.project} in {self.aws.region} (any more): {hint}"

    def tell_unseen(self) -> None:
        for what, why in self.unseen.items():
            progress(f"{what} cannot be seen: {why}")

    def tell_unmanaged(self) -> None:
        for one in self.resources.unmanaged:
            progress(f"{one} has no tag {PROJECT_TAG}: these scripts did not make it, and leave it")
        for uri, count in self._of_others:
            progress(f"{uri}: {count} objects that these scripts cannot account for, and leave")


def dicts(resources: Sequence[Resource], stored: Sequence[S3Asset]) -> list[dict[str, Any]]:
    return [*(one.to_dict() for one in resources), *(one.to_dict() for one in stored)]


def table(resources: Sequence[Resource], stored: Sequence[S3Asset]) -> str:
    rows = [
        (
            one.kind,
            one.name,
            one.status,
            one.created.strftime("%Y-%m-%d %H:%M") if one.created else "",
            "" if one.usd_per_hour is None else f"{one.usd_per_hour:.3f}",
            one.detail,
        )
        for one in resources
    ]
    rows += [(one.kind, str(one), "", "", "", f"{len(one.keys)} objects, {one.bytes / 1e6:,.1f} MB") for one in stored]
    return text.table(("kind", "name", "status", "created", "USD/hour", ""), rows)
