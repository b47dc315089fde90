"""Parts that all tests share: a test that this machine cannot run is skipped with the reason, never in CI."""

import json
import os
import signal
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.cloud import permissions

Capture: TypeAlias = pytest.CaptureFixture[str]
Patch: TypeAlias = pytest.MonkeyPatch

# A shell starts what it puts into the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise by nohup
# Threads of torch that wait for each other sleep instead of spinning, here and in all that is started: where two lanes
# share the cores, a training of these tests took four times the processor time. (Before torch is loaded.)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# These look at all containers of the engine, or make and remove images of one name: never two of them at once.
ENGINE = (
    "docker/",
    "cloud/test_local_",
    "cloud/push/",
    "cloud/test_registry",
    "cloud/test_sdk_v3",
    "cloud/test_story",
)
# Where there are several lanes these begin first, the longest before all, so that no lane waits for them in the end.
LONGEST_FIRST = (
    "local_test/test_chain",
    *ENGINE,
    "faults/test_serve_faults",
    "scripts/tuning/test_local",
    "faults/test_hosts",
    "local_test/test_run",
    "contract/test_monitor",
    "contract/test_serve_lifecycle",
    "faults/test_spot",
    "contract/test_train",
    "container_train/training/test_engine",
    "faults/test_soak",
    "container_train/export/test_quantize",
    "cloud/",
    "test_notebooks",
)
# What takes long is left out but for TESTS=full (make soak).
FULL = os.environ.get("TESTS") == "full"


# The same test for processes of this environment and for the images.
both_engines = pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.docker)])
# The same, in the images only where there is time: it takes long, and has more to do with the program than with them.
both_engines_in_full = pytest.mark.parametrize(
    "kind", ["process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.full])]
)


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """In several lanes (pytest -n 2) a module stays in one of them: its tests share servers and results."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::")[0]
        return "engine" if module.removeprefix("tests/").startswith(ENGINE) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    config.option.loadscopereorder = False  # by the number of tests, that is
    return ByModule(config, log)


def place(item: pytest.Item) -> int:
    """When an item runs: its module's place in LONGEST_FIRST, or after all of these."""
    module = item.nodeid.removeprefix("tests/")
    return next((at for at, name in enumerate(LONGEST_FIRST) if module.startswith(name)), len(LONGEST_FIRST))


def pytest_configure(config: pytest.Config) -> None:
    """Here, and not in tests/cloud: the controller of several processes reads the conftest.py of no folder below."""
    config.pluginmanager.register(permissions.plugin(config), permissions.NAME)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=place)
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
