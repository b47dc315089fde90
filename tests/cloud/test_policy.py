"""The least permissions: scripts/iam/scripts.json against the calls that the other tests of this folder recorded."""

import json
from pathlib import Path

import pytest

from scripts.cloud.requests import model
from tests.cloud.conftest import ACTIONS, IAM, POLICIES, RECORDED, allowed
from tests.conftest import need
from tests.docker import engine

# What the Docker client asks of ECR while it pushes: made by no SDK, so recorded by no test.
DOCKER_PUSH = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
}
# Checked by a service on the way of another call.
IMPLIED = {"kms:Decrypt", "kms:GenerateDataKey", "iam:PassRole", "iam:TagRole", "sagemaker:AddTags", "ecr:TagResource"}
# Prefix of an action and the service whose operations it names, where these differ.
SERVICES = {"tag": "resourcegroupstaggingapi"}


def statements(name: str) -> list[dict[str, object]]:
    document = json.loads((IAM / name).read_text())
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, object]] = document["Statement"]
    return found


def test_nothing_is_allowed_that_no_test_needed(request: pytest.FixtureRequest) -> None:
    """Runs after all others of this folder (conftest sees to that); that nothing is lacking each of them checks."""
    config = request.config
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    collected = {item.path.name for item in request.session.items if item.path.parent == Path(__file__).parent}
    if here - collected or config.option.keyword or config.option.markexpr:
        pytest.skip("needs all tests of tests/cloud in one run, without -k and -m")
    need(engine.available(), "a Docker engine: some calls are made by tests with one only")
    unused = allowed(*POLICIES) - RECORDED - DOCKER_PUSH - IMPLIED
    assert not unused, f"allowed, but no test needs it: {sorted(unused)}"


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
            # Only what cannot be confined to a resource, by AWS's own tables.
            assert all(action.split(":")[1].startswith(("List", "Describe", "Get", "Put")) for action in actions)


def test_policy_size_fits_into_a_managed_policy() -> None:
    for name in (*POLICIES, "role.json"):
        # White space does not count towards the 6,144 characters.
        assert len("".join((IAM / name).read_text().split())) <= 6144
