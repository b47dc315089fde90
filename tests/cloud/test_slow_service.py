"""The scripts on a bad day of AWS: what is made takes its time, connections break, calls are throttled."""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config

from container_serve.artifact import FORMAT_VERSION
from scripts import cleanup, deploy, predict, train, tune
from scripts.aws import account as clients
from scripts.aws import names
from scripts.aws.names import S3Uri
from scripts.aws.settings import load
from scripts.console.command import run
from scripts.endpoints import invocations, lookup
from scripts.endpoints.deployment import Deployment
from scripts.images import registry
from scripts.images.registry import DOCKER_MANIFEST
from scripts.jobs import watch
from scripts.tuning import cloud
from tests import trees
from tests.cloud import models
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_cleanup import NOTHING
from tests.cloud.test_cleanup import in_account as there
from tests.contract.models import picture

HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
KEY = "byoc/job-1/output/model.tar.gz"
MODEL = f"s3://{BUCKET}/{KEY}"
DEPLOY = ("--image", f"{HOST}/byoc-serve:0.1.0", "--model-data", MODEL, "--name", "byoc-dogs")
DOGS = {"models": ["byoc-dogs"], "configurations": ["byoc-dogs"], "endpoints": ["byoc-dogs"]}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(cloud, "POLL_SECONDS", 0.0)


@pytest.fixture
def account(flaky: FlakyAws, aws: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SageMaker's client in an account with the images and a model."""
    labels = {"org.opencontainers.image.title": "byoc-serve", "byoc.format-version": str(FORMAT_VERSION)}
    monkeypatch.setattr(registry, "find", lambda aws, image: "sha256:" + "0" * 64)
    monkeypatch.setattr(registry, "image_labels", lambda aws, image: labels)
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path))
    flaky.calls.clear()
    return aws.client("sagemaker")


def call(capsys: pytest.CaptureFixture[str], script: ModuleType, *arguments: object) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines for people."""
    code = run(f"{script.__name__.rpartition('.')[2]}.py", script.main, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err.splitlines()


def make(client: Any, name: str = "byoc-dogs", count: int = 3) -> None:
    """The first `count` of the requests that deploy.py sends: model, configuration, endpoint."""
    settings = load(argparse.Namespace(project="byoc", role=ROLE, region=REGION), {})
    wanted = Deployment(
        "byoc-dogs", name, "image", S3Uri.parse(MODEL, "-"), "ml.m5.large", 1, {}, 600, 600, False
    )  # fmt: skip
    for request in wanted.create(settings)[:count]:
        getattr(client, xform_name(request.operation))(**request.request)


# deploy.py


def test_deploy_waits_while_the_endpoint_is_created(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(3)
    code, out, said = call(capsys, deploy, *DEPLOY)
    assert (code, out) == (0, "byoc-dogs\n")
    assert [line for line in said if line.startswith("byoc-dogs: ")] == [
        "byoc-dogs: Creating, 0:00 min",
        "byoc-dogs: InService, 0:00 min",
    ]
    assert flaky.calls.count("DescribeEndpoint") == 1 + 4  # whether the name is free, and the wait


def test_deploy_attaches_to_what_is_still_created(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(3)
    code, out, _ = call(capsys, deploy, *DEPLOY, "--no-wait", "--json")
    assert (code, json.loads(out)["status"]) == (0, "Creating")
    code, _, said = call(capsys, deploy, *DEPLOY)
    assert (code, "the endpoint byoc-dogs already exists (Creating)" in said[-1]) == (1, True)
    code, _, said = call(capsys, deploy, *DEPLOY, "--update")
    assert (code, "is Creating: wait for that first" in said[-1]) == (1, True)
    code, out, _ = call(capsys, deploy, "--attach", "byoc-dogs", "--json")
    assert (code, json.loads(out)["status"]) == (0, "InService")


def test_deploy_tries_again_what_is_throttled_or_did_not_arrive(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    operations = ("HeadObject", "GetObject", "CreateModel", "CreateEndpointConfig", "CreateEndpoint")
    for operation in operations:
        flaky.throttle(operation, times=2)
        flaky.break_before(operation)
    for fault in (flaky.throttle, flaky.break_before, flaky.break_after):
        fault("DescribeEndpoint", 2)
    flaky.slow(1)
    code, _, said = call(capsys, deploy, *DEPLOY)
    assert code == 0, said
    assert there(account) == DOGS
    assert all(flaky.calls.count(operation) >= 4 for operation in operations if operation in flaky.calls)
    assert {"GetObject", "CreateModel", "CreateEndpointConfig", "CreateEndpoint"} <= set(flaky.calls)


@pytest.fixture
def live(account: Any, flaky: FlakyAws, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An endpoint that serves, in a service that is slow from now on."""
    make(account)
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    flaky.slow(2)
    return account


@pytest.mark.parametrize("prune", [False, True])
def test_an_update_is_followed_to_its_end(
    live: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], prune: bool
) -> None:
    code, out, said = call(capsys, deploy, *DEPLOY, "--update", "--json", *(["--prune"] if prune else []))
    assert code == 0, said
    assert [line for line in said if line.startswith("byoc-dogs: ")] == [
        "byoc-dogs: Updating, 0:00 min",
        "byoc-dogs: InService, 0:00 min",
    ]
    assert json.loads(out)["previous_configuration"] == "byoc-dogs"
    assert live.describe_endpoint(EndpointName="byoc-dogs")["EndpointConfigName"] == "byoc-dogs-now"
    assert there(live)["configurations"] == [*([] if prune else ["byoc-dogs"]), "byoc-dogs-now"]


def test_an_update_that_fails_leaves_what_served_before(
    live: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(2, failure="did not pass the ping health check")
    code, _, said = call(capsys, deploy, *DEPLOY, "--update")
    assert code == 1
    assert "byoc-dogs: RollingBack, 0:00 min" in said
    assert "serves the configuration from before, byoc-dogs: did not pass the ping health check" in said[-1]
    assert there(live) == DOGS


# deploy.py, whose requests are performed and whose answers are lost

CREATING = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")
TRIES = 9  # of botocore, with the pauses taken out
UPDATING = ("CreateModel", "CreateEndpointConfig", "UpdateEndpoint")
DOGS_NOW = {
    "models": ["byoc-dogs", "byoc-dogs-now"],
    "configurations": ["byoc-dogs", "byoc-dogs-now"],
    "endpoints": ["byoc-dogs"],
}


@pytest.mark.parametrize("operation", CREATING)
def test_deploy_takes_what_the_lost_call_has_made(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    flaky.slow(2)
    flaky.break_after(operation)
    code, out, said = call(capsys, deploy, *DEPLOY)
    assert (code, out) == (0, "byoc-dogs\n"), said
    assert flaky.calls.count(operation) == 2
    assert there(account) == DOGS
    assert not [name for name in flaky.calls if name.startswith("Delete")]


@pytest.mark.parametrize("operation", UPDATING)
def test_an_update_whose_answer_is_lost_goes_on(
    live: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    flaky.break_after(operation)
    code, out, said = call(capsys, deploy, *DEPLOY, "--update")
    assert (code, out) == (0, "byoc-dogs\n"), said
    found = live.describe_endpoint(EndpointName="byoc-dogs")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "byoc-dogs-now")
    assert there(live) == DOGS_NOW


@pytest.mark.parametrize("fault", ["break_after", "fail_after", "hang"])
@pytest.mark.parametrize("operation", ["CreateEndpoint", "UpdateEndpoint"])
def test_all_answers_are_lost_and_the_endpoint_is_found(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str,
    operation: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(clients, "CONFIG", clients.CONFIG.merge(Config(read_timeout=1)))
    more = []
    if operation == "UpdateEndpoint":
        make(account)
        more = ["--update"]
    flaky.slow(2)
    getattr(flaky, fault)(operation, times=1 if fault == "hang" else TRIES)
    code, _, said = call(capsys, deploy, *DEPLOY, *more)
    assert code == 0, said
    assert account.describe_endpoint(EndpointName="byoc-dogs")["EndpointStatus"] == "InService"


@pytest.mark.parametrize("operation", ["CreateEndpoint", "UpdateEndpoint"])
def test_what_may_still_be_performed_keeps_its_configuration(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    monkeypatch.setattr(
        clients, "CONFIG", Config(read_timeout=4, retries={"total_max_attempts": 1}, user_agent_extra="x")
    )
    update = operation == "UpdateEndpoint"
    if update:
        make(account)
    flaky.delay(operation)
    code, _, said = call(capsys, deploy, *DEPLOY, *(["--update"] if update else []))
    assert (code, "may be made or changed all the same" in said[-1]) == (1, True)
    assert "scripts/deploy.py --attach byoc-dogs" in said[-1]
    flaky.catch_up()
    wanted = "byoc-dogs-now" if update else "byoc-dogs"
    deadline = time.monotonic() + 30
    while operation == "CreateEndpoint" and not account.list_endpoints()["Endpoints"]:
        assert time.monotonic() < deadline
    while account.describe_endpoint(EndpointName="byoc-dogs")["EndpointConfigName"] != wanted:
        assert time.monotonic() < deadline
    assert account.describe_endpoint(EndpointName="byoc-dogs")["EndpointStatus"] == "InService"
    assert there(account) == (DOGS_NOW if update else DOGS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_update_leaves_what_the_endpoint_moves_to(
    account: Any, flaky: FlakyAws, number: signal.Signals
) -> None:
    """A process of its own, as it is ended by whoever waits no longer; the service has accepted, and says nothing."""
    make(account)
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName="byoc-serve")
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": {"digest": f"sha256:{'1' * 64}"}}
    ecr.put_image(repositoryName="byoc-serve", imageTag="0.1.0", imageManifest=json.dumps({**manifest, "layers": []}))
    flaky.slow(1)
    flaky.hang("UpdateEndpoint")
    script = Path(deploy.__file__)
    process = subprocess.Popen([sys.executable, script, *DEPLOY, "--update"], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while "UpdateEndpoint" not in flaky.calls:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].splitlines()
    finally:
        process.kill()
    assert process.returncode == 128 + number, said
    assert "interrupted: the endpoint byoc-dogs may be made or changed all the same" in said[-1]
    wait(account)
    configuration = account.describe_endpoint(EndpointName="byoc-dogs")["EndpointConfigName"]
    assert configuration.startswith("byoc-dogs-2")
    assert configuration in there(account)["configurations"]
    assert configuration in there(account)["models"]


def test_what_another_call_has_made_is_not_taken_for_ones_own(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first try is lost on the way, and a model of this name comes into being meanwhile."""
    flaky.break_before("CreateModel")
    flaky.before["CreateModel"] = lambda: make(account, count=1)
    code, _, said = call(capsys, deploy, *DEPLOY)
    assert (code, "Cannot create already existing model" in said[-1]) == (1, True)
    assert there(account) == {**NOTHING, "models": ["byoc-dogs"]}


def test_a_network_that_is_gone_leaves_what_costs_nothing_and_says_so(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.break_after("CreateEndpointConfig", times=TRIES)
    flaky.before["CreateEndpointConfig"] = lambda: flaky.break_before("DescribeEndpointConfig", times=TRIES)
    flaky.break_before("ListEndpoints", times=TRIES)
    code, _, said = call(capsys, deploy, *DEPLOY)
    assert code == 1
    assert any(line.startswith("not removed (AWS cannot be reached") for line in said), said
    assert "configuration byoc-dogs, model byoc-dogs; scripts/cleanup.py" in said[-2]
    assert there(account) == {**DOGS, "endpoints": []}


def test_what_somebody_else_uses_meanwhile_is_not_taken_back(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:

    def meanwhile() -> None:
        serve_elsewhere(account, "byoc-dogs")
        flaky.throttle("CreateEndpointConfig", times=100)

    flaky.before["CreateEndpointConfig"] = meanwhile
    code, _, said = call(capsys, deploy, *DEPLOY)
    assert (code, "throttles" in said[-1]) == (1, True)
    assert "left: model byoc-dogs, which the configuration elsewhere uses" in said
    assert "byoc-dogs" in there(account)["models"]


def serve_elsewhere(client: Any, model: str) -> None:
    """Another team's configuration of this model."""
    variant = {"VariantName": "a", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client.create_endpoint_config(EndpointConfigName="elsewhere", ProductionVariants=[variant])


def test_prune_leaves_what_another_endpoint_serves(live: Any, capsys: pytest.CaptureFixture[str]) -> None:
    live.create_endpoint(EndpointName="theirs", EndpointConfigName="byoc-dogs")
    code, out, said = call(capsys, deploy, *DEPLOY, "--update", "--prune", "--json")
    assert (code, json.loads(out)["removed"]) == (0, [])
    assert "left: configuration byoc-dogs, which the endpoint theirs uses" in said
    assert "left: model byoc-dogs, which the configuration byoc-dogs uses" in said


@pytest.mark.parametrize("given", [(), ("--instance-count", "2")])
def test_an_update_keeps_what_autoscaling_has_made(
    live: Any, capsys: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    scaled = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 5}]
    live.update_endpoint_weights_and_capacities(EndpointName="byoc-dogs", DesiredWeightsAndCapacities=scaled)
    wait(live)
    code, out, said = call(capsys, deploy, *DEPLOY, "--update", "--json", *given)
    assert code == 0, said
    (variant,) = live.describe_endpoint(EndpointName="byoc-dogs")["ProductionVariants"]
    count = 2 if given else 5
    assert (variant["DesiredInstanceCount"], json.loads(out)["instance_count"]) == (count, count)
    configuration = live.describe_endpoint_config(EndpointConfigName="byoc-dogs-now")
    assert configuration["ProductionVariants"][0]["InitialInstanceCount"] == count


def wait(client: Any) -> None:
    while client.describe_endpoint(EndpointName="byoc-dogs")["EndpointStatus"] != "InService":
        pass


# cleanup.py


@pytest.mark.parametrize("doing", ["Creating", "Updating"])
def test_cleanup_waits_until_an_endpoint_can_be_deleted(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], doing: str
) -> None:
    flaky.slow(4 if doing == "Creating" else 0)
    make(account)
    if doing == "Updating":
        make(account, "byoc-dogs-now", count=2)
        flaky.slow(4)
        account.update_endpoint(EndpointName="byoc-dogs", EndpointConfigName="byoc-dogs-now")
    code, _, said = call(capsys, cleanup, "byoc-dogs", "--yes")
    assert code == 0, said
    assert f"byoc-dogs is still {doing}: waiting until it can be deleted" in said
    assert "byoc-dogs: Deleting, 0:00 min" in said
    assert said.index("deleted endpoint byoc-dogs") < said.index("deleted configuration byoc-dogs")
    assert there(account) == NOTHING


def test_cleanup_deletes_an_endpoint_that_failed(
    account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(3, failure="no capacity")
    make(account)
    assert call(capsys, cleanup, "byoc-dogs", "--yes")[0] == 0
    assert there(account) == NOTHING


@pytest.mark.parametrize("fault", ["throttle", "break_before", "break_after"])
def test_cleanup_tries_again(account: Any, flaky: FlakyAws, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    make(account)
    flaky.slow(1)
    for operation in ("ListEndpoints", "DescribeEndpoint", "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"):
        getattr(flaky, fault)(operation)
    code, _, said = call(capsys, cleanup, "byoc-dogs", "--yes")
    assert code == 0, said
    assert there(account) == NOTHING


# train.py


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return trees.fill(tmp_path / "pictures", {"train": 1, "valid": 1, "test": 1})


def job(pictures: Path, *more: str) -> Sequence[object]:
    return ("--image", f"{HOST}/byoc-train:0.1.0", "--data", pictures, "--weights", "none", *more)


def test_train_follows_a_job_to_its_end(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(3)
    code, out, said = call(capsys, train, *job(pictures, "--name", "byoc-a", "--json"))
    assert code == 0, said
    assert json.loads(out)["status"] == "Completed"
    assert flaky.calls.count("DescribeTrainingJob") == 1 + 4  # whether the name is free, and the wait
    flaky.slow(2, failure="AlgorithmError: lr is wrong")
    code, _, said = call(capsys, train, *job(pictures, "--name", "byoc-b"))
    assert (code, said[-1]) == (1, "train.py: byoc-b failed: AlgorithmError: lr is wrong")


def test_train_attaches_to_a_job_and_stops_it(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    flaky.slow(3)
    code, _, said = call(capsys, train, *job(pictures, "--name", "byoc-a", "--no-wait"))
    assert code == 0, said
    flaky.break_after("StopTrainingJob")
    code, out, _ = call(capsys, train, "--stop", "byoc-a", "--json")
    assert (code, json.loads(out)) == (0, {"name": "byoc-a", "status": "Stopping"})
    assert "sagemaker:StopTrainingJob" in calls
    code, _, said = call(capsys, train, "--attach", "byoc-a")
    assert (code, "byoc-a was stopped" in said[-1]) == (1, True)


@pytest.mark.parametrize(("script", "noun"), [(train, "TrainingJob"), (tune, "HyperParameterTuningJob")])
@pytest.mark.parametrize("fault", ["break_after", "hang"])
def test_a_job_with_a_name_of_the_callers_own_whose_answer_is_lost(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    script: ModuleType, noun: str, fault: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(clients, "CONFIG", clients.CONFIG.merge(Config(read_timeout=1)))
    flaky.slow(99)
    getattr(flaky, fault)(f"Create{noun}")
    call_ = (*job(pictures, "--name", "byoc-a", "--no-wait"),)
    code, out, said = call(capsys, script, *call_)
    assert (code, out) == (0, "byoc-a\n"), said
    assert flaky.calls.count(f"Create{noun}") == 2
    # The name is taken now, which is known before anything is uploaded.
    flaky.calls.clear()
    code, _, said = call(capsys, script, *call_)
    assert (code, "a job byoc-a already exists" in said[-1]) == (1, True)
    assert "PutObject" not in flaky.calls


def test_somebody_elses_job_of_this_name_is_not_taken_for_ones_own(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def meanwhile() -> None:
        account.create_training_job(
            TrainingJobName="byoc-a",
            AlgorithmSpecification={"TrainingImage": "another", "TrainingInputMode": "File"},
            RoleArn=ROLE,
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )

    flaky.before["CreateTrainingJob"] = meanwhile
    flaky.throttle("CreateTrainingJob")
    code, _, said = call(capsys, train, *job(pictures, "--name", "byoc-a", "--no-wait"))
    assert (code, "ResourceInUse" in said[-1]) == (1, True)


@pytest.mark.parametrize("fault", ["throttle", "break_before", "break_after"])
def test_train_tries_again(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """A lost answer, too: that the service has a job of a name made here already, can only be our own request."""
    flaky.slow(1)
    for operation in ("ListObjectsV2", "PutObject", "CreateTrainingJob", "DescribeTrainingJob"):
        getattr(flaky, fault)(operation)
    code, out, said = call(capsys, train, *job(pictures, "--json"))
    assert code == 0, said
    assert json.loads(out)["status"] == "Completed"
    assert len(account.list_training_jobs()["TrainingJobSummaries"]) == 1


@pytest.mark.parametrize("script", [train, tune])
def test_attach_gives_up_at_once_where_there_was_never_an_answer(
    account: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: ModuleType
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # as with a wrong HTTPS_PROXY
    code, _, said = call(capsys, script, "--attach", "byoc-a")
    assert code == 1
    assert "AWS cannot be reached" in said[-1]
    assert "--attach byoc-a" in said[-1]


@pytest.mark.parametrize("script", [train, tune])
def test_following_ends_where_no_answer_comes_any_more(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    script: ModuleType,
) -> None:  # fmt: skip
    flaky.slow(99)
    noun = "TrainingJob" if script is train else "HyperParameterTuningJob"
    assert call(capsys, script, *job(pictures, "--name", "byoc-a", "--no-wait"))[0] == 0
    for module in (watch, cloud):
        monkeypatch.setattr(module, "JOB_SECONDS", 0.5)
    flaky.after[f"Describe{noun}"] = lambda: flaky.break_before(f"Describe{noun}", 10**6)
    code, _, said = call(capsys, script, "--attach", "byoc-a")
    assert code == 1, said
    assert sum("trying again" in line for line in said) <= 1
    assert "--attach byoc-a" in said[-1]


def test_cleanup_stops_a_job_that_runs(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.slow(9)
    assert call(capsys, train, *job(pictures, "--name", "byoc-a", "--no-wait"))[0] == 0
    flaky.break_after("StopTrainingJob")
    code, out, _ = call(capsys, cleanup, "--jobs", "--yes", "--json")
    assert (code, [one["name"] for one in json.loads(out)["removed"]]) == (0, ["byoc-a"])
    assert account.describe_training_job(TrainingJobName="byoc-a")["TrainingJobStatus"] == "Stopping"


# tune.py


@pytest.mark.parametrize("fault", ["throttle", "break_before", "break_after"])
def test_tune_tries_again_and_stops_what_runs(
    account: Any, flaky: FlakyAws, pictures: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    flaky.slow(9)
    for operation in ("CreateHyperParameterTuningJob", "StopHyperParameterTuningJob"):
        getattr(flaky, fault)(operation)
    code, name, said = call(capsys, tune, *job(pictures, "--no-wait"))
    assert code == 0, said
    (search,) = account.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"]
    assert (search["HyperParameterTuningJobName"], search["HyperParameterTuningJobStatus"]) == (
        name.strip(),
        "InProgress",
    )
    code, out, _ = call(capsys, cleanup)
    assert (code, name.strip() in out) == (0, True)
    code, out, said = call(capsys, tune, "--stop", name.strip(), "--json")
    assert (code, json.loads(out)["status"]) == (0, "Stopping"), said


# predict.py


DOG = {"predictions": [{"index": 1, "label": "Beagle", "probability": 0.75}], "model": {}}


def test_predict_tries_again_what_was_not_computed(
    account: Any, flaky: FlakyAws, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dog.png").write_bytes(picture("red"))
    monkeypatch.setattr(invocations, "PAUSES", (2.0, 2.0))
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    make(account)
    flaky.prediction = DOG
    flaky.throttle("InvokeEndpoint", 2)
    code, out, said = call(capsys, predict, "byoc-dogs", tmp_path / "dog.png", "--json")
    assert (code, "Beagle" in out) == (0, True), said
    assert flaky.calls.count("InvokeEndpoint") == 3
    assert pauses == [2.0, 2.0]
    flaky.throttle("InvokeEndpoint", 3)
    code, _, said = call(capsys, predict, "byoc-dogs", tmp_path / "dog.png")
    assert (code, "throttles" in said[-1]) == (1, True)


@pytest.mark.parametrize(("fault", "complaint"), [
    ("break_before", "the connection broke"), ("break_after", "the connection broke"), ("hang", "no answer within"),
])  # fmt: skip
def test_predict_asks_once_for_what_may_have_been_computed(
    account: Any, flaky: FlakyAws, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    fault: str, complaint: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(clients, "ONCE", clients.ONCE.merge(Config(read_timeout=4)))
    (tmp_path / "dog.png").write_bytes(picture("red"))
    make(account)
    flaky.prediction = DOG
    getattr(flaky, fault)("InvokeEndpoint")
    pictures = [tmp_path / "dog.png"] * 3
    code, out, said = call(capsys, predict, "byoc-dogs", *pictures, "--threads", 1, "--json")
    assert (code, said[-1]) == (1, "predict.py: 1 of 3 predictions failed")
    errors = [result.get("error", "") for result in json.loads(out)["results"]]
    assert [complaint in error for error in errors] == [True, False, False]
    assert flaky.calls.count("InvokeEndpoint") == 3


def test_the_latency_is_that_of_one_try(
    account: Any, flaky: FlakyAws, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    make(account)

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(invocations, "PAUSES", (30.0,))
    monkeypatch.setattr(invocations, "time", SimpleNamespace(sleep=pass_by, monotonic=lambda: now))
    (tmp_path / "dog.png").write_bytes(picture("red"))
    flaky.prediction = DOG
    flaky.throttle("InvokeEndpoint")
    code, out, _ = call(capsys, predict, "byoc-dogs", tmp_path / "dog.png", "--json")
    assert (code, json.loads(out)["latency_ms"]) == (0, {"p50": 0.0, "p90": 0.0})
    assert now == 30.0
