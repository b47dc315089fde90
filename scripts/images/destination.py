"""Registries that images are pushed to: the account's ECR, or any that the user has signed in to."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError

from scripts.aws.account import Aws
from scripts.aws.errors import POLICY, CloudError
from scripts.aws.settings import Settings
from scripts.images import registry
from scripts.images.engine import LocalImage, explained


@dataclass(frozen=True)
class RemoteImage:
    """An image in a registry; `is_same`: it is known to be the local one."""

    media_type: str
    digest: str
    is_same: bool


class Ecr:
    """The account's registry. Makes the repositories of all targets, or fails, before anything long begins."""

    # What to do where the registry denies something.
    denied = f"a permission is missing; {POLICY} lists those that the scripts need"

    def __init__(self, aws: Aws, targets: Sequence[str], chosen: Settings) -> None:
        self.aws = aws
        account = aws.identity.account
        if chosen.role and chosen.role.account != account:
            whose = f"the credentials are of the account {account}, the role {chosen.role.arn} is of another one"
            raise CloudError(f"{whose}: set AWS_PROFILE, or correct BYOC_ROLE or byoc.toml")
        self._names = {target: f"{chosen.project}-{target}" for target in targets}
        self._repositories = {
            target: registry.ensure_repository(aws, name, chosen) for target, name in self._names.items()
        }

    def repository(self, target: str) -> str:
        """HOST/NAME."""
        return str(self._repositories[target]["repositoryUri"])

    def immutable(self, target: str) -> bool:
        """Tell whether it is known that tags cannot be moved."""
        return str(self._repositories[target].get("imageTagMutability", "")).startswith("IMMUTABLE")

    def credentials(self) -> Mapping[str, str] | None:
        """As docker-py takes them, for twelve hours; None: those of `docker login`."""
        data = self.aws.client("ecr").get_authorization_token()["authorizationData"][0]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return {"username": user, "password": password}

    def find(self, target: str, tag: str, image: LocalImage) -> RemoteImage | None:
        found = registry.look_up(self.aws, self.aws.identity.account, self._names[target], {"imageTag": tag})
        if found is None:
            return None
        manifest = json.loads(found["imageManifest"])
        digest: str = found["imageId"]["imageDigest"]
        same = image.id in (manifest.get("config", {}).get("digest"), digest)
        return RemoteImage(str(manifest.get("mediaType", found.get("imageManifestMediaType"))), digest, same)


class GenericRegistry:
    """Any registry, `place` is HOST or HOST/PATH; the user has called `docker login`."""

    def __init__(self, client: Any, place: str, chosen: Settings) -> None:
        self._client = client
        self._host = place.split("/")[0]
        self._prefix = f"{place}/{chosen.project}"
        self.denied = f"`docker login {self._host}` as a user who may push there"

    def repository(self, target: str) -> str:
        return f"{self._prefix}-{target}"

    def immutable(self, target: str) -> bool:
        return False

    def credentials(self) -> None:
        return None

    def find(self, target: str, tag: str, image: LocalImage) -> RemoteImage | None:
        """Ask through the engine. None too where reading is denied: some registries deny what is not there."""
        with explained(self._host):
            try:
                found = self._client.api.inspect_distribution(f"{self.repository(target)}:{tag}")["Descriptor"]
            except APIError as error:
                if error.status_code not in (401, 403, 404):
                    raise
                return None
        same = f"{self.repository(target)}@{found['digest']}" in image.pushed
        return RemoteImage(found["mediaType"], found["digest"], same)


Destination = Ecr | GenericRegistry
