"""Jobs and predictions on a bad day of AWS: connections break, calls are throttled, answers are lost."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from boto3 import Session

from scripts import predict, train, tune
from scripts.aws import account as clients
from scripts.aws import polling
from scripts.endpoints import invocations
from tests import trees
from tests.cloud.conftest import TRAIN_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import create_job, deployed
from tests.conftest import Patch
from tests.contract.models import picture

BOTH = pytest.mark.parametrize(("script", "noun"), [(train, "TrainingJob"), (tune, "HyperParameterTuningJob")])
pytestmark = pytest.mark.usefixtures("flaky", "image")


@pytest.fixture
def job(tmp_path: Path) -> tuple[object, ...]:
    pictures = trees.fill(tmp_path / "pictures", {"train": 1, "valid": 1, "test": 1})
    return ("--image", TRAIN_IMAGE, "--data", pictures, "--weights", "none", "--name", "byoc-a")


def test_train_attaches_to_a_job_and_stops_it(
    flaky: FlakyAws, job: tuple[object, ...], call: Call, calls: list[str]
) -> None:
    flaky.slow(3)
    assert call(train, *job, "--no-wait").code == 0
    flaky.break_after("StopTrainingJob")
    for sent in (True, False):  # it is being stopped already
        ended = call(train, "--stop", "byoc-a", "--json")
        assert (ended.code, ended.json) == (0, {"name": "byoc-a", "status": "Stopping"})
        assert "byoc-a is being stopped; it has 120 s to save what it has" in ended.err
        assert ("sagemaker:StopTrainingJob" in calls) == sent
        calls.clear()
    call(train, "--attach", "byoc-a").ends(1, "byoc-a was stopped")


@BOTH
@pytest.mark.parametrize("fault", ["break_after", "hang"])
def test_a_job_with_a_name_of_the_callers_own_whose_answer_is_lost(
    flaky: FlakyAws, job: tuple[object, ...], call: Call, monkeypatch: Patch, script: ModuleType, noun: str, fault: str
) -> None:
    monkeypatch.setattr(clients, "CONFIG", clients.CONFIG | {"read_timeout": 1})
    flaky.slow(99)
    getattr(flaky, fault)(f"Create{noun}")
    ended = call(script, *job, "--no-wait")
    assert (ended.code, ended.out) == (0, "byoc-a\n"), ended.err
    assert flaky.calls.count(f"Create{noun}") == 2
    # The name is taken now, which is known before anything is uploaded.
    flaky.calls.clear()
    call(script, *job, "--no-wait").ends(1, "a job byoc-a already exists")
    assert "PutObject" not in flaky.calls


def test_somebody_elses_job_of_this_name_is_not_taken_for_ones_own(
    aws: Session, flaky: FlakyAws, job: tuple[object, ...], call: Call
) -> None:
    flaky.before["CreateTrainingJob"] = lambda: create_job(aws, "byoc-a")
    flaky.throttle("CreateTrainingJob")
    call(train, *job, "--no-wait").ends(1, "ResourceInUse")


@pytest.mark.parametrize("fault", ["throttle", "break_before", "break_after"])
def test_train_tries_again(aws: Session, flaky: FlakyAws, job: tuple[object, ...], call: Call, fault: str) -> None:
    """A lost answer, too: that the service has a job of a name made here already, can only be our own request."""
    flaky.slow(1)
    for operation in ("ListObjectsV2", "PutObject", "CreateTrainingJob", "DescribeTrainingJob"):
        getattr(flaky, fault)(operation)
    ended = call(train, *job[:-2], "--json")
    assert ended.code == 0, ended.err
    assert ended.json["status"] == "Completed"
    assert len(aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]) == 1


@BOTH
def test_following_ends_where_no_answer_comes(
    flaky: FlakyAws, job: tuple[object, ...], call: Call, monkeypatch: Patch, script: ModuleType, noun: str
) -> None:
    flaky.slow(99)
    assert call(script, *job, "--no-wait").code == 0
    monkeypatch.setattr(polling, "JOB_SECONDS", 0.5)
    flaky.after[f"Describe{noun}"] = lambda: flaky.break_before(f"Describe{noun}", 10**6)
    ended = call(script, "--attach", "byoc-a")
    assert ended.code == 1, ended.err
    assert ended.err.count("trying again") <= 1
    assert "--attach byoc-a" in ended.last
    # At once where there was never an answer, as with a wrong HTTPS_PROXY.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    call(script, "--attach", "byoc-a").ends(1, "AWS cannot be reached", "--attach byoc-a")


# predict.py


@pytest.fixture
def dog(aws: Session, flaky: FlakyAws, tmp_path: Path) -> Path:
    """A picture, and an endpoint that knows it."""
    deployed(aws)
    flaky.prediction = {"predictions": [{"index": 1, "label": "Beagle", "probability": 0.75}], "model": {}}
    (tmp_path / "dog.png").write_bytes(picture("red"))
    return tmp_path / "dog.png"


def test_predict_tries_again_what_was_not_computed(flaky: FlakyAws, dog: Path, call: Call, monkeypatch: Patch) -> None:
    now = 0.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(invocations, "PAUSES", (2.0, 2.0))
    monkeypatch.setattr(invocations, "time", SimpleNamespace(sleep=pass_by, monotonic=lambda: now))
    flaky.throttle("InvokeEndpoint", 2)
    ended = call(predict, "byoc-dogs", dog, "--json")
    assert (ended.code, "Beagle" in ended.out) == (0, True), ended.err
    assert flaky.calls.count("InvokeEndpoint") == 3
    # The latency is that of one try.
    assert (now, ended.json["latency_ms"]) == (4.0, {"p50": 0.0, "p90": 0.0})
    flaky.throttle("InvokeEndpoint", 3)
    call(predict, "byoc-dogs", dog).ends(1, "throttles")


@pytest.mark.parametrize(("fault", "complaint"), [
    ("break_before", "the connection broke"), ("break_after", "the connection broke"), ("hang", "no answer within"),
])  # fmt: skip
def test_predict_asks_once_for_what_may_have_been_computed(
    flaky: FlakyAws, dog: Path, call: Call, monkeypatch: Patch, fault: str, complaint: str
) -> None:
    monkeypatch.setattr(clients, "ONCE", clients.ONCE | {"read_timeout": 4})
    getattr(flaky, fault)("InvokeEndpoint")
    ended = call(predict, "byoc-dogs", dog, dog, dog, "--threads", 1, "--json")
    assert (ended.code, ended.last) == (1, "predict.py: 1 of 3 predictions failed")
    errors = [result.get("error", "") for result in ended.json["results"]]
    assert [complaint in error for error in errors] == [True, False, False]
    assert flaky.calls.count("InvokeEndpoint") == 3
