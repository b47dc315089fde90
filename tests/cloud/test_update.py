"""deploy.py --update and --attach: what an endpoint has afterwards, and what is said where it cannot be changed."""

from typing import Any

import pytest
from boto3 import Session

from scripts import deploy
from scripts.aws import names
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, CALL, REGION, Call
from tests.cloud.resources import DOGS, deployed, described, there
from tests.cloud.test_deploy import NONE
from tests.conftest import Patch

ACCEPTED = {"EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"}


@pytest.fixture
def live(account: Session, monkeypatch: Patch) -> Session:
    """An endpoint that serves."""
    deployed(account)
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    return account


@pytest.mark.parametrize("status", ["Failed", "UpdateRollbackFailed"])
def test_an_update_whose_way_back_fails(live: Session, monkeypatch: Patch, call: Call, status: str) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, described(status, "byoc-dogs", FailureReason="no capacity"))
    ended = call(deploy, *CALL, "--update")
    ended.ends(1, f"byoc-dogs is {status} with the configuration from before, byoc-dogs: no capacity")
    assert there(live) == DOGS


def test_what_a_broken_endpoint_may_still_run_is_not_removed(live: Session, monkeypatch: Patch, call: Call) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, described("UpdateRollbackFailed", "byoc-dogs-now"))
    call(deploy, *CALL, "--update").ends(1, "remove it with scripts/cleanup.py byoc-dogs")
    both = ["byoc-dogs", "byoc-dogs-now"]
    assert there(live) == {"models": both, "configurations": both, "endpoints": ["byoc-dogs"]}


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (NONE, "there is no endpoint byoc-dogs"),
        (described("Updating"), "is Updating: wait for that first"),
        (described("Failed"), "is Failed and cannot be updated"),
        (PASS, "Service Quotas"),
    ],
)
def test_an_endpoint_that_cannot_be_updated(
    live: Session, monkeypatch: Patch, call: Call, answer: Any, complaint: str
) -> None:
    call(deploy, *CALL, "--update", "--project", "birds").ends(1, "has no tag byoc-project=birds")
    give(monkeypatch, "UpdateEndpoint", error("ResourceLimitExceeded", "limit is 1"))
    give(monkeypatch, "DescribeEndpoint", answer)
    call(deploy, *CALL, "--update").ends(1, complaint)
    assert there(live) == DOGS


@pytest.mark.usefixtures("account")
def test_instances_are_not_lost_without_a_word(monkeypatch: Patch, call: Call) -> None:
    kind = ("--instance-type", "ml.c5.xlarge", "--instance-count")
    assert call(deploy, *CALL, *kind, "3").code == 0
    call(deploy, *CALL, "--update").ends(2, "runs on 3 x ml.c5.xlarge: say with --instance-type")
    assert "it needs --instance-count 2" in call(deploy, *CALL, "--update", *kind, "1", "--strategy", "rolling").last
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    less = ("--instance-type", "ml.m5.large", "--instance-count", "1", "--no-wait")
    assert call(deploy, *CALL, "--update", *less).code == 0


@pytest.mark.usefixtures("live")
def test_attach_follows_an_update_to_its_end(monkeypatch: Patch, call: Call) -> None:
    updating = described("Updating", PendingDeploymentSummary={"EndpointConfigName": "byoc-dogs-now"})
    give(monkeypatch, "DescribeEndpoint", updating, updating, described("InService", "byoc-dogs-now"))
    assert call(deploy, "--attach", "byoc-dogs").out == "byoc-dogs\n"
    for answers, said in (
        ([updating, updating, described("InService", FailureReason="alarm errors")],
            "serves the configuration from before, byoc-dogs: alarm errors"),
        ([described("Failed", FailureReason="no")], "is Failed with byoc-dogs: no; its log: /aws/sagemaker"),
        ([NONE], f"there is no endpoint byoc-dogs in {REGION}"),
    ):  # fmt: skip
        give(monkeypatch, "DescribeEndpoint", *answers)
        call(deploy, "--attach", "byoc-dogs").ends(1, said)
