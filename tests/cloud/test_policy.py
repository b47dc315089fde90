"""The least permissions: scripts/iam/scripts.json against the calls that the tests of this folder make."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.aws.requests import model
from tests.cloud import permissions
from tests.cloud.permissions import ACTIONS, DOCKER_PUSH, IAM, IMPLIED, POLICIES

ROOT = Path(__file__).parents[2]
# Prefix of an action and the service whose operations it names, where these differ.
SERVICES = {"tag": "resourcegroupstaggingapi"}


def statements(name: str) -> list[dict[str, object]]:
    document = json.loads((IAM / name).read_text())
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, object]] = document["Statement"]
    return found


@pytest.mark.whole
def test_nothing_is_allowed_that_no_test_needed(pytestconfig: pytest.Config) -> None:
    """Fails at the end of the whole run, when the calls of all tests in all processes are known (permissions.py)."""
    assert pytestconfig.pluginmanager.has_plugin(permissions.NAME)


@pytest.mark.parametrize("name", [*POLICIES, "role.json"])
def test_actions_exist_and_are_confined(name: str) -> None:
    s3 = {action for actions in ACTIONS.values() for action in actions}
    for statement in statements(name):
        assert statement["Sid"]
        actions = statement["Action"]
        assert isinstance(actions, list)
        assert actions == sorted(actions)
        for action in actions:
            assert "*" not in action
            prefix, operation = action.split(":")
            known = set(model(SERVICES.get(prefix, prefix)).operation_names) | DOCKER_PUSH
            assert operation in known or action in s3 | IMPLIED | DOCKER_PUSH, action
        if statement["Resource"] == "*":
            # What cannot be confined to a resource, by AWS's own tables, and looking at what others have made: nothing
            # that they use is removed.
            assert all(action.split(":")[1].startswith(("List", "Describe", "Get", "Put")) for action in actions)


def test_policy_size_fits_into_a_managed_policy() -> None:
    for name in (*POLICIES, "role.json"):
        # White space does not count towards the 6,144 characters.
        assert len("".join((IAM / name).read_text().split())) <= 6144


# --- the comparison at the end of a run

CONFTEST = """
import pytest
from tests.cloud.permissions import NAME, Permissions

def pytest_configure(config):
    config.pluginmanager.register(Permissions(config, "calls", {"s3:GetObject", "s3:PutObject"}), NAME)

@pytest.fixture
def needed(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin(NAME).needed
"""
MODULES = {
    "test_get.py": "def test_get(needed): needed.add('s3:GetObject')",
    "test_put.py": "def test_put(needed): needed.add('s3:PutObject')",
    "test_policy.py": "def test_nothing_is_allowed_that_no_test_needed(): pass",
}
LACKING = "allowed in scripts/iam, but no test needs it: s3:PutObject"


@pytest.fixture
def calls_of(tmp_path: Path) -> Path:
    """A folder of tests that need all that is allowed."""
    (tmp_path / "calls").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name, text in MODULES.items():
        (tmp_path / "calls" / name).write_text(text)
    return tmp_path


def run(folder: Path, *arguments: str, ci: bool = False) -> tuple[int, str]:
    """Exit code, and the failures in the JUnit report."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CI": "true" if ci else "", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml=junit.xml", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    failed = ElementTree.parse(folder / "junit.xml").iter("failure")
    assert "INTERNALERROR" not in done.stdout
    return done.returncode, "\n".join(f"{case.get('message')} {case.text}" for case in failed)


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_permission_that_no_test_needs_fails_the_run(calls_of: Path, processes: str) -> None:
    assert run(calls_of, "-n", processes, ci=True) == (0, "")
    (calls_of / "calls" / "test_put.py").write_text("def test_put(): pass")
    code, failures = run(calls_of, "-n", processes)
    assert (code, LACKING in failures) == (1, True)


def test_some_of_the_tests_are_not_compared(calls_of: Path) -> None:
    assert run(calls_of, "-k", "get or nothing") == (0, "")
    assert run(calls_of, "calls/test_get.py", ci=True) == (0, "")
    code, failures = run(calls_of, "-k", "get or nothing", ci=True)
    assert (code, "not compared: not all tests of calls were selected" in failures) == (1, True)
