"""The one loop that waits for jobs, searches, endpoints and answers in AWS."""

import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.errors import explain, is_passing

POLL_SECONDS = 10.0
JOB_SECONDS = 3600.0  # without an answer; with what may take days
ENDPOINT_SECONDS = 300.0
T = TypeVar("T")


def poll(
    look: Callable[[], T],
    is_over: Callable[[T], bool],
    *,
    pause: float | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] | None = None,
    untouched: str = "",
    answered: bool = False,
) -> T:
    """Call `look` every `pause` seconds (10) until `is_over` of what it returns.

    Throttling and a network that is down are borne for `seconds` (an hour), once there has been an answer (`answered`:
    before this call): until then, settings are wrong. `say` gets one line for each stretch without an answer, which
    names what is `untouched` by it. Raises botocore's errors.
    """
    pause = POLL_SECONDS if pause is None else pause
    seconds = JOB_SECONDS if seconds is None else seconds
    heard = time.monotonic() if answered else None
    troubled = False
    while True:
        try:
            found = look()
        except (ClientError, BotoCoreError) as error:
            if not is_passing(error) or heard is None or time.monotonic() - heard > seconds:
                raise
            if say and not troubled:
                say(f"{explain(error)}; trying again ({untouched} is not touched by this)")
            troubled = True
        else:
            heard, troubled = time.monotonic(), False
            if is_over(found):
                return found
        time.sleep(pause)
