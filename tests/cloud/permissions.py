"""The permissions that the tests' calls need: collected over all processes of a run, compared with the policy once.

Every test of tests/cloud adds what its calls need. At the end of the whole run, the process that reports it fails
`test_nothing_is_allowed_that_no_test_needed` where the policy allows more than that. A run of some tests is not
compared; in CI it fails if that test was among them, since nothing has been compared then.
"""

import functools
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

IAM = Path(__file__).parents[2] / "scripts" / "iam"
# What the scripts need, and what making the role needs beyond it.
POLICIES = ("scripts.json", "admin.json")

# Operations whose permission has another name than service:Operation; an empty list needs none.
ACTIONS = {
    "sts:GetCallerIdentity": [],
    "iam:CreateRole": ["iam:CreateRole", "iam:TagRole"],
    "s3:ListObjectsV2": ["s3:ListBucket"],
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:HeadObject": ["s3:GetObject"],
    "s3:DeleteObjects": ["s3:DeleteObject"],
    "s3:PutPublicAccessBlock": ["s3:PutBucketPublicAccessBlock"],
    "s3:CopyObject": ["s3:GetObject", "s3:PutObject"],
    **{f"s3:{name}": ["s3:PutObject"] for name in ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")},
    **{f"sagemaker:Create{noun}": [f"sagemaker:Create{noun}", "sagemaker:AddTags"]
       for noun in ("EndpointConfig", "Endpoint", "TransformJob", "ModelPackageGroup")},
    **{f"sagemaker:Create{noun}": [f"sagemaker:Create{noun}", "sagemaker:AddTags", "iam:PassRole"]
       for noun in ("TrainingJob", "HyperParameterTuningJob", "Model")},
    "sagemaker-runtime:InvokeEndpoint": ["sagemaker:InvokeEndpoint"],
    "sagemaker-runtime:InvokeEndpointAsync": ["sagemaker:InvokeEndpointAsync"],
    "application-autoscaling:RegisterScalableTarget": [
        "application-autoscaling:RegisterScalableTarget", "iam:CreateServiceLinkedRole",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
    ],
    "application-autoscaling:PutScalingPolicy": [
        "application-autoscaling:PutScalingPolicy", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm",
    ],
    "application-autoscaling:DeleteScalingPolicy": [
        "application-autoscaling:DeleteScalingPolicy", "cloudwatch:DeleteAlarms",
    ],
    "cloudwatch:PutDashboard": ["cloudwatch:PutDashboard", "cloudwatch:TagResource"],
    "cloudwatch:PutMetricAlarm": ["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"],
    "resourcegroupstaggingapi:GetResources": ["tag:GetResources"],
}  # fmt: skip
# What the Docker client asks of ECR while it pushes: made by no SDK, so recorded by no test.
DOCKER_PUSH = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
}
# Checked by a service on the way of another call.
IMPLIED = {
    "cloudwatch:TagResource", "ecr:TagResource", "iam:CreateServiceLinkedRole", "iam:PassRole", "iam:TagRole",
    "kms:Decrypt", "kms:GenerateDataKey", "sagemaker:AddTags", "sns:Publish",
}  # fmt: skip
NAME = "permissions"  # of the plugin
FOLDER = "tests/cloud"
TEST = "test_policy.py::test_nothing_is_allowed_that_no_test_needed"


def actions(service: str, operation: str) -> list[str]:
    """The permissions of one call."""
    name = f"{service}:{operation}"
    return ACTIONS.get(name, [name])


@functools.cache
def allowed(*policies: str) -> frozenset[str]:
    """Every action that these policy documents allow."""
    statements = [statement for name in policies for statement in json.loads((IAM / name).read_text())["Statement"]]
    assert all(statement["Effect"] == "Allow" for statement in statements)
    return frozenset(action for statement in statements for action in statement["Action"])


class Permissions:
    """A plugin of pytest. With xdist the workers hand what they have to the controller, which compares."""

    def __init__(self, config: pytest.Config, folder: str, to_need: Collection[str]) -> None:
        self.config, self.folder, self.to_need = config, folder, to_need
        self.needed: set[str] = set()
        self.tests: set[str] = set()  # selected in this folder
        self.passed: set[str] = set()
        self.lost = False  # a process ended without handing over

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = {item.nodeid for item in session.items if item.nodeid.startswith(f"{self.folder}/")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        handed_over = getattr(node, "workeroutput", {}).get(NAME)
        if handed_over is None:
            self.lost = True
        else:
            self.needed |= set(handed_over["needed"])
            self.tests |= set(handed_over["tests"])

    @pytest.hookimpl(tryfirst=True)  # before the report files are written
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        worker = getattr(self.config, "workeroutput", None)
        if worker is not None:
            worker[NAME] = {"needed": sorted(self.needed), "tests": sorted(self.tests)}
            return
        complaint = self._compare()
        if complaint:
            file, _, name = f"{self.folder}/{TEST}".partition("::")
            report = pytest.TestReport(f"{file}::{name}", (file, 0, name), {}, "failed", complaint, "call")
            self.config.hook.pytest_runtest_logreport(report=report)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _compare(self) -> str | None:
        """Return the reason why the run fails, or None."""
        missing = sorted(self.tests - self.passed)
        if not self._is_whole():
            wanted = f"{self.folder}/{TEST}" in self.tests
            return self._incomplete(f"not all tests of {self.folder} were selected") if wanted else None
        if self.lost:
            return self._incomplete("a process of the tests was lost")
        if missing:
            return self._incomplete(f"{len(missing)} tests have not passed, such as {missing[0]}")
        unused = sorted(set(self.to_need) - self.needed)
        return f"allowed in scripts/iam, but no test needs it: {', '.join(unused)}" if unused else None

    def _is_whole(self) -> bool:
        options = self.config.option
        if (
            options.keyword
            or options.markexpr
            or options.deselect
            or getattr(options, "lf", False)
            or any("::" in name for name in self.config.args)
        ):
            return False
        files = {path.name for path in (self.config.rootpath / self.folder).rglob("test_*.py")}
        return {Path(nodeid.partition("::")[0]).name for nodeid in self.tests} == files

    @staticmethod
    def _incomplete(why: str) -> str | None:
        """On a machine of one's own there are tools missing and tests that fail; in CI everything has to run."""
        return f"the permissions were not compared: {why}" if os.environ.get("CI") == "true" else None


def of(config: pytest.Config) -> Permissions:
    """The plugin of this run."""
    found = config.pluginmanager.get_plugin(NAME)
    assert isinstance(found, Permissions)
    return found


def plugin(config: pytest.Config) -> Permissions:
    return Permissions(config, FOLDER, allowed(*POLICIES) - DOCKER_PUSH - IMPLIED)
