"""deploy.py --update and --attach: what an endpoint has afterwards, and what is said where it cannot be changed."""

from typing import Any

import boto3
import pytest
from botocore import xform_name

from scripts import deploy
from scripts.aws import names
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE, Call
from tests.cloud.test_deploy import CALL, DOGS, NONE, account, endpoint, fast, image, made
from tests.conftest import Patch

__all__ = ["account", "fast", "image"]  # fixtures
ACCEPTED = {"EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"}


@pytest.fixture
def live(account: boto3.Session, monkeypatch: Patch, call: Call) -> boto3.Session:
    """An endpoint that serves, made with the requests of deploy.py."""
    for one in call(deploy, *CALL, "--role", ROLE, "--dry-run").json:
        getattr(account.client("sagemaker"), xform_name(one["operation"]))(**one["request"])
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    return account


@pytest.mark.parametrize("status", ["Failed", "UpdateRollbackFailed"])
def test_an_update_whose_way_back_fails(live: boto3.Session, monkeypatch: Patch, call: Call, status: str) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, endpoint(status, "byoc-dogs", FailureReason="no capacity"))
    ended = call(deploy, *CALL, "--update")
    assert ended.code == 1
    assert f"byoc-dogs is {status} with the configuration from before, byoc-dogs: no capacity" in ended.last
    assert made(live) == DOGS


def test_what_a_broken_endpoint_may_still_run_is_not_removed(
    live: boto3.Session, monkeypatch: Patch, call: Call
) -> None:
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    give(monkeypatch, "DescribeEndpoint", PASS, endpoint("UpdateRollbackFailed", "byoc-dogs-now"))
    ended = call(deploy, *CALL, "--update")
    assert (ended.code, "remove it with scripts/cleanup.py byoc-dogs" in ended.last) == (1, True)
    both = ["byoc-dogs", "byoc-dogs-now"]
    assert made(live) == {"models": both, "configurations": both, "endpoints": ["byoc-dogs"]}


@pytest.mark.parametrize(
    ("described", "complaint"),
    [
        (NONE, "there is no endpoint byoc-dogs"),
        (endpoint("Updating"), "is Updating: wait for that first"),
        (endpoint("Failed"), "is Failed and cannot be updated"),
        (PASS, "Service Quotas"),
    ],
)
def test_an_endpoint_that_cannot_be_updated(
    live: boto3.Session, monkeypatch: Patch, call: Call, described: Any, complaint: str
) -> None:
    give(monkeypatch, "UpdateEndpoint", error("ResourceLimitExceeded", "limit is 1"))
    give(monkeypatch, "DescribeEndpoint", described)
    ended = call(deploy, *CALL, "--update")
    assert (ended.code, complaint in ended.last) == (1, True), ended.err
    assert made(live) == DOGS


def test_an_endpoint_of_others_is_not_changed(live: boto3.Session, call: Call) -> None:
    ended = call(deploy, *CALL, "--update", "--project", "birds")
    assert (ended.code, "has no tag byoc-project=birds" in ended.last) == (1, True)
    assert made(live) == DOGS


@pytest.mark.usefixtures("account")
def test_instances_are_not_lost_without_a_word(monkeypatch: Patch, call: Call) -> None:
    kind = ("--instance-type", "ml.c5.xlarge", "--instance-count")
    assert call(deploy, *CALL, *kind, "3").code == 0
    ended = call(deploy, *CALL, "--update")
    assert (ended.code, "runs on 3 x ml.c5.xlarge: say with --instance-type" in ended.last) == (2, True)
    assert "it needs --instance-count 2" in call(deploy, *CALL, "--update", *kind, "1", "--strategy", "rolling").last
    give(monkeypatch, "UpdateEndpoint", ACCEPTED)
    less = ("--instance-type", "ml.m5.large", "--instance-count", "1", "--no-wait")
    assert call(deploy, *CALL, "--update", *less).code == 0


@pytest.mark.usefixtures("live")
def test_attach_follows_an_update_to_its_end(monkeypatch: Patch, call: Call) -> None:
    updating = endpoint("Updating", PendingDeploymentSummary={"EndpointConfigName": "byoc-dogs-now"})
    give(monkeypatch, "DescribeEndpoint", updating, updating, endpoint("InService", "byoc-dogs-now"))
    assert call(deploy, "--attach", "byoc-dogs").out == "byoc-dogs\n"
    for answers, said in (
        ([updating, updating, endpoint("InService", FailureReason="alarm errors")],
            "serves the configuration from before, byoc-dogs: alarm errors"),
        ([endpoint("Failed", FailureReason="no")], "is Failed: no; remove it with scripts/cleanup.py byoc-dogs"),
        ([NONE], f"there is no endpoint byoc-dogs in {REGION}"),
    ):  # fmt: skip
        give(monkeypatch, "DescribeEndpoint", *answers)
        ended = call(deploy, "--attach", "byoc-dogs")
        assert (ended.code, said in ended.last) == (1, True), ended.err
