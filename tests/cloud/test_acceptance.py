"""acceptance.py on moto: to its end, at the ceiling, failing, killed in the middle; nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session

from scripts import acceptance
from scripts.story import performance
from scripts.story.steps import STEPS, TRAIN
from tests import documents, trees
from tests.cloud import hosting
from tests.cloud.conftest import HOST, REGION, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.hosting import Hosting
from tests.cloud.resources import keys, put, there
from tests.conftest import Patch
from tests.docker.engine import ROOT

IMAGES = ("--train-image", f"{HOST}/byoc-train:1", "--serve-image", f"{HOST}/byoc-serve:1")


@pytest.fixture
def service(
    aws: Session, flaky: FlakyAws, labels: dict[str, str], tmp_path: Path, monkeypatch: Patch
) -> Iterator[Hosting]:
    for name in ("BYOC_PROJECT", "BYOC_ROLE", "BYOC_BUCKET", "AWS_REGION"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards: the program sets them
    monkeypatch.setenv("AWS_REGION", REGION)
    hosting.hurry(monkeypatch.setattr)
    trees.fill(tmp_path / "data", {"train": 2, "valid": 1, "test": 1})
    made = Hosting(aws, flaky, tmp_path / "service")
    with made.stack:
        yield made


def words(tmp_path: Path) -> list[str]:
    return [*IMAGES, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]


def result(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "result.json").read_text())
    return found


def statuses(tmp_path: Path) -> dict[str, str]:
    return {one["step"]: one["status"] for one in result(tmp_path)["outcomes"]}


def left(session: Session) -> list[str]:
    """Return the names of all resources in the account."""
    return [
        *(name for names in there(session).values() for name in names),
        *keys(session),
        *(one["RoleName"] for one in session.client("iam").list_roles()["Roles"]),
        *(one["repositoryName"] for one in session.client("ecr").describe_repositories()["repositories"]),
    ]


ALL = {step.name: "passed" for step in STEPS}


def test_to_the_end(service: Hosting, tmp_path: Path, call: Call) -> None:
    ended = call(acceptance, *words(tmp_path)).ends(0)
    found = result(tmp_path)
    assert statuses(tmp_path) == ALL
    assert (found["status"], found["removed"]) == ("passed", True)
    seen = {one["step"]: one["seen"] for one in found["outcomes"]}
    assert seen["real-time, update"]["right"] == "1 of 3"
    assert seen["serverless"]["cold start ms"] is not None
    assert "first answer from zero s" in seen["asynchronous, from zero"]
    assert "load of the second model ms" in seen["multi-model"]
    assert seen["transform"]["an answer's key"].endswith(".jpg.out")
    text = (tmp_path / "out" / "result.txt").read_text()
    assert text.strip() == ended.out.strip()
    assert "everything that it made is removed" in text
    assert left(service.session) == []


def test_it_stops_before_the_step_that_could_pass_the_ceiling(service: Hosting, tmp_path: Path, call: Call) -> None:
    assert call(acceptance, *words(tmp_path), "--max-usd", "0.6").code == 1
    names = [step.name for step in STEPS]
    after = names.index("asynchronous, from zero")
    assert statuses(tmp_path) == ALL | dict.fromkeys(names[after:], "not run")
    found = result(tmp_path)
    assert found["status"].startswith("stopped before asynchronous, from zero, which could cost 0.52 USD")
    assert found["removed"]
    assert left(service.session) == []


def test_a_step_that_fails_is_said_and_the_others_are_tried(
    service: Hosting, flaky: FlakyAws, tmp_path: Path, call: Call
) -> None:
    def fail() -> None:
        flaky.slow(0, failure="no capacity")
        flaky.after["UpdateEndpoint"] = lambda: flaky.slow(0)

    flaky.before["UpdateEndpoint"] = fail
    assert call(acceptance, *words(tmp_path)).code == 1
    assert statuses(tmp_path) == ALL | {"real-time, update": "failed"}
    assert result(tmp_path)["status"] == "failed"
    assert "no capacity" in result(tmp_path)["outcomes"][3]["seen"]["because"]
    assert left(service.session) == []


def test_a_step_that_takes_too_long_is_broken_off(
    service: Hosting, tmp_path: Path, monkeypatch: Patch, call: Call
) -> None:
    """The training never ends: its job is stopped, and what needs its model is not run."""
    service.train = False
    slow = [replace(step, seconds=1) if step is TRAIN else step for step in STEPS]
    monkeypatch.setattr(performance, "STEPS", slow)
    assert call(acceptance, *words(tmp_path)).code == 1
    passed = {"push": "passed", "upload": "passed", "train on spot": "failed"}
    assert statuses(tmp_path) == dict.fromkeys(ALL, "not run") | passed
    assert result(tmp_path)["outcomes"][2]["seen"]["because"] == "it took longer than 1 s"
    assert left(service.session) == []


@pytest.mark.parametrize(
    ("operation", "step"),
    [
        ("CreateTrainingJob", "train on spot"),
        ("CreateEndpoint", "real-time, update"),
        ("PutScalingPolicy", "asynchronous, from zero"),
    ],
)
def test_what_a_killed_call_has_left_is_removed_by_the_next(
    service: Hosting, flaky: FlakyAws, tmp_path: Path, operation: str, step: str, call: Call
) -> None:
    assert ended_in(flaky, operation, signal.SIGKILL, tmp_path) == -signal.SIGKILL
    assert not result(tmp_path)["removed"]
    assert statuses(tmp_path)[step] == "running"
    assert left(service.session) != []
    assert call(acceptance, *words(tmp_path)).code == 1
    assert (result(tmp_path)["status"], result(tmp_path)["removed"]) == (f"killed in {step}", True)
    assert left(service.session) == []
    if operation == "CreateTrainingJob":
        assert call(acceptance, *words(tmp_path)).code == 0  # the next one begins anew


def ended_in(flaky: FlakyAws, operation: str, number: int, tmp_path: Path) -> int:
    """The exit code of a process of its own that gets a signal while the service performs `operation`."""
    code = "import sys; from tests.cloud import hosting; sys.exit(hosting.accept(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        flaky.before[operation] = lambda: os.kill(child.pid, number)
        return child.wait(120)
    finally:
        child.kill()


def test_on_sigterm_it_removes_what_it_made(service: Hosting, flaky: FlakyAws, tmp_path: Path) -> None:
    assert ended_in(flaky, "CreateEndpoint", signal.SIGTERM, tmp_path) == 128 + signal.SIGTERM
    assert (result(tmp_path)["status"], result(tmp_path)["removed"]) == ("interrupted", True)
    assert left(service.session) == []


def test_it_does_not_begin_beside_things_of_others(service: Hosting, tmp_path: Path, call: Call) -> None:
    put(service.session, "byoc-acceptance/mine")
    call(acceptance, *words(tmp_path)).ends(1, "already, such as byoc-acceptance/mine")
    assert not (tmp_path / "out" / "result.json").exists()


def test_the_plan_is_in_the_documentation(call: Call) -> None:
    plan = call(acceptance, "--dry-run", "--region", "us-west-2").ends(0).out
    assert plan.strip() in (documents.ROOT / "docs" / "acceptance.md").read_text()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--hyperparameters", "epohcs=3"), "unknown hyperparameter epohcs (value '3'): did you mean epochs?"),
        (("--hyperparameters", "epochs=0"), "hyperparameter epochs has value '0': expected an integer from 1"),
        (("--hyperparameters", "epochs"), "--hyperparameters has value 'epochs': expected KEY=VALUE"),
        (("--train-type", "ml.p3.2xlarge"), "--train-type ml.p3.2xlarge has a GPU of compute capability 7.0"),
        (("--train-type", "large"), "--train-type has value 'large': expected one such as ml.g4dn.xlarge"),
        (("--serve-image", "byoc-serve:1"), "--serve-image has value 'byoc-serve:1'"),
        (("--serve-type=ml.p5.48xlarge",), "is not known here"),
        (("--max-usd=0",), "expected USD, more than 0"),
        *(((f"--max-usd={usd}",), f"'{usd}' must be a number of 0 or more") for usd in ("nan", "-1")),
    ],
)
@pytest.mark.parametrize("dry_run", [("--dry-run",), ()])
def test_what_a_step_would_refuse_is_refused_at_once(
    flags: tuple[str, ...], complaint: str, dry_run: tuple[str, ...], tmp_path: Path, call: Call
) -> None:
    ended = call(acceptance, "--out", tmp_path / "out", "--region", REGION, *flags, *dry_run).ends(2, complaint)
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
