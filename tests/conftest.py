"""What all tests share: a test that this machine cannot run is skipped with the reason, never in CI."""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A shell starts what it puts into the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# These look at all containers of the engine, or make and remove images of one name.
GROUPS = {"docker": "cloud"}
# What takes long is left out but for TESTS=full (make soak).
FULL = os.environ.get("TESTS") == "full"


# The same test for processes of this environment and for the images.
both_engines = pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.docker)])


class ByFolder(LoadScopeScheduling):  # type: ignore[misc]
    """Side by side (pytest -n 2) a folder stays in one process: its tests share servers and results."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return GROUPS.get(folder, folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FULL:
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def need(available: object, what: str) -> None:
    """Skip the running test when `available` is false, naming `what` is missing; in CI (CI=true) that is a failure."""
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to provide this: {what}")
    pytest.skip(f"needs {what}")
