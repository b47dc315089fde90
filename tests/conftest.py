"""What all tests share: a test that this machine cannot run is skipped with the reason, never in CI."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A shell starts what it puts into the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise by nohup
# Threads of torch that wait for each other sleep instead of spinning, here and in all that is started: where two lanes
# share the cores, a training of these tests took four times the processor time. (Before torch is loaded.)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# These look at all containers of the engine, or make and remove images of one name.
GROUPS = {"docker": "cloud"}
# What takes long is left out but for TESTS=full (make soak).
FULL = os.environ.get("TESTS") == "full"


# The same test for processes of this environment and for the images.
both_engines = pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.docker)])
# The same, in the images only where there is time: it takes long, and has more to do with the program than with them.
both_engines_in_full = pytest.mark.parametrize(
    "kind", ["process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.full])]
)


class ByFolder(LoadScopeScheduling):  # type: ignore[misc]
    """Side by side (pytest -n 2) a folder stays in one process: its tests share servers and results."""

    def _split_scope(self, nodeid: str) -> str:
        _, folder, *files = nodeid.split("/")
        if folder == "faults":  # the longest; what measures load stays in one process with what makes it
            return f"faults, {'serving' if files[0].startswith(('test_serve', 'test_soak')) else 'training'}"
        return GROUPS.get(folder, folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timing"):  # into junit.xml: .ci/tests.py runs these once more if they fail
            item.user_properties.append(("timing", item.nodeid))
    if FULL:
        return
    left_out = {item for item in items if item.get_closest_marker("full")}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Beside junit.xml, what .ci/tests.py needs to know that the file holds all of this run."""
    xml: str | None = session.config.getoption("xmlpath")
    if xml and not hasattr(session.config, "workerinput"):
        status = {
            "exit_code": int(session.exitstatus),
            "collected": session.testscollected,
            "root": str(session.config.rootpath),
        }
        Path(xml).with_suffix(".json").write_text(json.dumps(status))


def need(available: object, what: str) -> None:
    """Skip the running test when `available` is false, naming `what` is missing; in CI (CI=true) that is a failure."""
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to provide this: {what}")
    pytest.skip(f"needs {what}")
