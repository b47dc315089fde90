"""Where images are pushed to: the account's ECR, or any registry that the user has signed in to."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from scripts.aws.account import Aws
from scripts.aws.errors import POLICY, CloudError
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.images import credentials, registry
from scripts.images.credentials import Credentials


class Destination(Protocol):
    @property
    def host(self) -> str: ...

    @property
    def denied(self) -> str:
        """What to do where the registry denies something."""

    @property
    def hides(self) -> bool:
        """Whether the registry may deny reading what is not there."""

    def repository(self, target: str) -> str:
        """HOST/NAME."""

    def immutable(self, target: str) -> bool:
        """Whether it is known that tags cannot be moved."""

    def sign_in(self) -> Credentials | None: ...

    def environment(self, known: Credentials | None) -> AbstractContextManager[dict[str, str]]:
        """The environment in which Docker has what `sign_in` gave."""


class Ecr:
    """The account's registry. Makes the repositories of all targets, or fails, before anything long begins."""

    hides = False
    denied = f"a permission is missing; {POLICY} lists those that the scripts need"

    def __init__(self, aws: Aws, targets: Sequence[str], chosen: Settings) -> None:
        self.aws = aws
        account = aws.identity.account
        if chosen.role and chosen.role.account != account:
            raise CloudError(
                f"the credentials are of the account {account}, the role {chosen.role.arn} is of another one: SageMaker"
                " takes images and role from one account; set AWS_PROFILE, or correct BYOC_ROLE or byoc.toml"
            )
        self._repositories = {
            target: registry.ensure_repository(aws, f"{chosen.project}-{target}", chosen) for target in targets
        }
        for repository in self._repositories.values():
            if repository.made:
                progress(f"made the repository {repository.name} in {aws.region}, account {account}")
        self.host = next(iter(self._repositories.values())).uri.split("/")[0]

    def repository(self, target: str) -> str:
        return self._repositories[target].uri

    def immutable(self, target: str) -> bool:
        return self._repositories[target].immutable

    def sign_in(self) -> Credentials:
        return registry.sign_in(self.aws)

    @contextmanager
    def environment(self, known: Credentials | None) -> Iterator[dict[str, str]]:
        assert known is not None
        with credentials.given(self.host, known) as environment:
            yield environment


class Elsewhere:
    """Any registry, `place` is HOST or HOST/PATH; the user has called `docker login`."""

    hides = True

    def __init__(self, place: str, chosen: Settings) -> None:
        self.host = place.split("/")[0]
        self.denied = f"`docker login {self.host}` as a user who may push there"
        self._prefix = f"{place}/{chosen.project}"

    def repository(self, target: str) -> str:
        return f"{self._prefix}-{target}"

    def immutable(self, target: str) -> bool:
        return False

    def sign_in(self) -> Credentials | None:
        return credentials.of(self.host)

    def environment(self, known: Credentials | None) -> AbstractContextManager[dict[str, str]]:
        return nullcontext(dict(os.environ))
