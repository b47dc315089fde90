"""What all tests share: a test that this machine cannot run is skipped with the reason, never in CI."""

import os
import signal

import pytest

# A shell starts what it puts into the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def need(available: object, what: str) -> None:
    """Skip the running test when `available` is false, naming `what` is missing; in CI (CI=true) that is a failure."""
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to provide this: {what}")
    pytest.skip(f"needs {what}")
