"""The name of a version in the model registry, as a user gives it."""

import re
from dataclasses import dataclass

from scripts.aws.errors import CloudError
from scripts.aws.settings import Settings
from scripts.console.command import progress

_REFERENCE = re.compile(r"([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})(?::([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Reference:
    """GROUP[:VERSION] as a user gives it."""

    group: str
    version: int | None

    @classmethod
    def parse(cls, text: str, flag: str) -> "Reference":
        """Raises CloudError."""
        match = _REFERENCE.fullmatch(text)
        if not match:
            raise CloudError(f"{flag} has value {text!r}: expected GROUP or GROUP:VERSION, such as byoc-dogs:3", 2)
        return cls(match[1], int(match[2]) if match[2] else None)

    def arn(self, settings: Settings) -> str:
        """Return the ARN without asking AWS; where no version is given, that of version 1."""
        role = settings.need_role()
        if self.version is None:
            progress(f"--dry-run: the version of {self.group} is looked up in AWS; 1 stands for it here")
        place = f"arn:{role.partition}:sagemaker:{settings.need_region()}:{role.account}"
        return f"{place}:model-package/{self.group}/{self.version or 1}"
