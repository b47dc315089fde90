"""Patience with a service that does not answer while it is polled."""

import time
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.errors import explain, is_passing

JOB_SECONDS = 3600.0  # with what may take days
ENDPOINT_SECONDS = 300.0


class Patience:
    """Bears with throttling and a network that is down, once there has been an answer: before, settings are wrong."""

    def __init__(self, seconds: float, say: Callable[[str], None] | None = None, untouched: str = "") -> None:
        """`say` gets one line for each stretch without an answer; `untouched`: what goes on in the meantime."""
        self._seconds, self._say, self._untouched = seconds, say, untouched
        self._heard: float | None = None
        self._troubled = False

    def answered(self, *, fully: bool = True) -> None:
        """`fully`: nothing of the look is missing, so that the next trouble is a new one."""
        self._heard, self._troubled = time.monotonic(), self._troubled and not fully

    def bear(self, error: ClientError | BotoCoreError) -> None:
        """Raises `error` where it will not pass, or has lasted too long."""
        if not is_passing(error) or self._heard is None or time.monotonic() - self._heard > self._seconds:
            raise error
        if self._say and not self._troubled:
            self._say(f"{explain(error)}; trying again ({self._untouched} is not touched by this)")
        self._troubled = True
