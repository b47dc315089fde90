"""Endpoints on a bad day of AWS: what is made takes its time, connections break, calls are throttled."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boto3 import Session

from scripts import cleanup, deploy
from scripts.aws import account as clients
from scripts.aws import names
from tests.cloud.conftest import CALL, Call, put_image
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import DOGS, NOTHING, deployed, serve, there
from tests.conftest import Patch

pytestmark = pytest.mark.usefixtures("flaky")
TRIES = 9  # of botocore, with the pauses taken out


@pytest.fixture
def live(account: Session, flaky: FlakyAws, monkeypatch: Patch) -> Session:
    """An endpoint that serves, in a service that is slow from now on."""
    deployed(account)
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    flaky.slow(2)
    return account


def found(session: Session) -> tuple[str, str]:
    """The endpoint's status and configuration."""
    endpoint = session.client("sagemaker").describe_endpoint(EndpointName="byoc-dogs")
    return endpoint["EndpointStatus"], endpoint["EndpointConfigName"]


def wait(session: Session) -> None:
    while found(session)[0] != "InService":
        pass


@pytest.mark.usefixtures("account")
def test_deploy_attaches_to_what_is_still_created(flaky: FlakyAws, call: Call) -> None:
    flaky.slow(3)
    ended = call(deploy, *CALL, "--no-wait", "--json")
    assert (ended.code, ended.json["status"]) == (0, "Creating")
    call(deploy, *CALL).ends(1, "the endpoint byoc-dogs already exists (Creating)")
    call(deploy, *CALL, "--update").ends(1, "is Creating: wait for that first")
    ended = call(deploy, "--attach", "byoc-dogs", "--json")
    assert (ended.code, ended.json["status"]) == (0, "InService")
    assert "byoc-dogs: InService, 0:00 min" in ended.err


def test_deploy_tries_again_what_is_throttled_or_did_not_arrive(account: Session, flaky: FlakyAws, call: Call) -> None:
    operations = ("GetObject", "CreateModel", "CreateEndpointConfig", "CreateEndpoint")
    for operation in operations:
        flaky.throttle(operation, times=2)
        flaky.break_before(operation)
    for fault in (flaky.throttle, flaky.break_before, flaky.break_after):
        fault("DescribeEndpoint", 2)
    flaky.slow(1)
    call(deploy, *CALL).ends(0)
    assert there(account) == DOGS
    assert all(flaky.calls.count(operation) >= 4 for operation in operations)


@pytest.mark.parametrize("prune", [(), ("--prune",)])
def test_an_update_is_followed_to_its_end(live: Session, call: Call, prune: tuple[str, ...]) -> None:
    ended = call(deploy, *CALL, "--update", "--json", *prune)
    assert ended.code == 0, ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("byoc-dogs: ")] == [
        "byoc-dogs: Updating, 0:00 min",
        "byoc-dogs: InService, 0:00 min",
    ]
    assert ended.json["previous_configuration"] == "byoc-dogs"
    assert found(live)[1] == "byoc-dogs-now"
    assert there(live)["configurations"] == [*([] if prune else ["byoc-dogs"]), "byoc-dogs-now"]


def test_an_update_that_fails_leaves_what_served_before(live: Session, flaky: FlakyAws, call: Call) -> None:
    flaky.slow(2, failure="did not pass the ping health check")
    ended = call(deploy, *CALL, "--update")
    ended.ends(1, "serves the configuration from before, byoc-dogs: did not pass the ping health check")
    ended.says("byoc-dogs: RollingBack, 0:00 min", code=1)
    assert there(live) == DOGS


# Requests are performed, and answers are lost


@pytest.mark.parametrize("operation", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint"])
def test_what_a_lost_call_has_made_is_taken(account: Session, flaky: FlakyAws, call: Call, operation: str) -> None:
    if update := ["--update"] if operation == "UpdateEndpoint" else []:
        deployed(account)
    flaky.slow(2)
    flaky.break_after(operation)
    ended = call(deploy, *CALL, *update)
    assert (ended.code, ended.out) == (0, "byoc-dogs\n"), ended.err
    assert flaky.calls.count(operation) == 2
    assert len(there(account)["configurations"]) == 1 + len(update)
    assert not [name for name in flaky.calls if name.startswith("Delete")]


@pytest.mark.parametrize("fault", ["break_after", "fail_after", "hang"])
@pytest.mark.parametrize("operation", ["CreateEndpoint", "UpdateEndpoint"])
def test_all_answers_are_lost_and_the_endpoint_is_found(
    account: Session, flaky: FlakyAws, call: Call, monkeypatch: Patch, fault: str, operation: str
) -> None:
    monkeypatch.setattr(clients, "CONFIG", clients.CONFIG | {"read_timeout": 1})
    if update := ["--update"] if operation == "UpdateEndpoint" else []:
        deployed(account)
    flaky.slow(2)
    getattr(flaky, fault)(operation, times=1 if fault == "hang" else TRIES)
    call(deploy, *CALL, *update).ends(0)
    assert found(account)[0] == "InService"


@pytest.mark.parametrize("operation", ["CreateEndpoint", "UpdateEndpoint"])
def test_what_may_still_be_performed_keeps_its_configuration(
    account: Session, flaky: FlakyAws, call: Call, monkeypatch: Patch, operation: str
) -> None:
    monkeypatch.setattr(names, "unique", lambda *parts: "-".join((*parts, "now")))
    config = {"read_timeout": 4, "retries": {"total_max_attempts": 1}, "user_agent_extra": "x"}
    monkeypatch.setattr(clients, "CONFIG", config)
    if update := ["--update"] if operation == "UpdateEndpoint" else []:
        deployed(account)
    flaky.delay(operation)
    ended = call(deploy, *CALL, *update)
    ended.ends(1, "may be made or changed all the same", "scripts/deploy.py --attach byoc-dogs")
    flaky.catch_up()
    wanted = "byoc-dogs-now" if update else "byoc-dogs"
    deadline = time.monotonic() + 30
    while not there(account)["endpoints"] or found(account) != ("InService", wanted):
        assert time.monotonic() < deadline
    assert set(there(account)["configurations"]) == {"byoc-dogs", wanted}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_update_leaves_what_the_endpoint_moves_to(
    account: Session, flaky: FlakyAws, number: signal.Signals
) -> None:
    """A process of its own, as it is ended by whoever waits no longer; the service has accepted, and says nothing."""
    deployed(account)
    put_image(account, "byoc-serve", "0.1.0")
    flaky.slow(1)
    flaky.hang("UpdateEndpoint")
    script = Path(deploy.__file__)
    process = subprocess.Popen([sys.executable, script, *CALL, "--update"], stderr=subprocess.PIPE, text=True)
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
    configuration = found(account)[1]
    assert configuration.startswith("byoc-dogs-2")
    assert configuration in there(account)["configurations"]
    assert configuration in there(account)["models"]


def test_what_another_call_has_made_is_not_taken_for_ones_own(account: Session, flaky: FlakyAws, call: Call) -> None:
    """The first try is lost on the way, and a model of this name comes into being meanwhile."""
    flaky.break_before("CreateModel")
    flaky.before["CreateModel"] = lambda: deployed(account, count=1)
    call(deploy, *CALL).ends(1, "Cannot create already existing model")
    assert there(account) == {**NOTHING, "models": ["byoc-dogs"]}


def test_a_network_that_is_gone_leaves_what_costs_nothing_and_says_so(
    account: Session, flaky: FlakyAws, call: Call
) -> None:
    flaky.break_after("CreateEndpointConfig", times=TRIES)
    flaky.before["CreateEndpointConfig"] = lambda: flaky.break_before("DescribeEndpointConfig", times=TRIES)
    flaky.break_before("ListEndpoints", times=TRIES)
    ended = call(deploy, *CALL).says("\nnot removed (AWS cannot be reached", code=1)
    assert "configuration byoc-dogs, model byoc-dogs; scripts/cleanup.py" in ended.err.splitlines()[-2]
    assert there(account) == {**DOGS, "endpoints": []}


def test_what_somebody_else_uses_meanwhile_is_not_taken_back(account: Session, flaky: FlakyAws, call: Call) -> None:
    def meanwhile() -> None:
        serve(account, "elsewhere", "byoc-dogs")
        flaky.throttle("CreateEndpointConfig", times=100)

    flaky.before["CreateEndpointConfig"] = meanwhile
    ended = call(deploy, *CALL)
    ended.ends(1, "throttles")
    ended.says("left: model byoc-dogs, which the configuration elsewhere uses", code=1)
    assert "byoc-dogs" in there(account)["models"]


def test_prune_leaves_what_another_endpoint_serves(live: Session, call: Call) -> None:
    live.client("sagemaker").create_endpoint(EndpointName="theirs", EndpointConfigName="byoc-dogs")
    ended = call(deploy, *CALL, "--update", "--prune", "--json")
    assert (ended.code, ended.json["removed"]) == (0, [])
    assert "left: configuration byoc-dogs, which the endpoint theirs uses" in ended.err
    assert "left: model byoc-dogs, which the configuration byoc-dogs uses" in ended.err


@pytest.mark.parametrize("given", [(), ("--instance-count", "2")])
def test_an_update_keeps_what_autoscaling_has_made(live: Session, call: Call, given: tuple[str, ...]) -> None:
    scaled = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 5}]
    client = live.client("sagemaker")
    client.update_endpoint_weights_and_capacities(EndpointName="byoc-dogs", DesiredWeightsAndCapacities=scaled)
    wait(live)
    ended = call(deploy, *CALL, "--update", "--json", *given)
    assert ended.code == 0, ended.err
    (variant,) = client.describe_endpoint(EndpointName="byoc-dogs")["ProductionVariants"]
    count = 2 if given else 5
    assert (variant["DesiredInstanceCount"], ended.json["instance_count"]) == (count, count)
    configuration = client.describe_endpoint_config(EndpointConfigName="byoc-dogs-now")
    assert configuration["ProductionVariants"][0]["InitialInstanceCount"] == count


# cleanup.py


@pytest.mark.parametrize("doing", ["Creating", "Updating", "Failed"])
def test_cleanup_waits_until_an_endpoint_can_be_deleted(
    account: Session, flaky: FlakyAws, call: Call, doing: str
) -> None:
    if doing == "Updating":
        deployed(account)
        deployed(account, name="byoc-dogs-now")
    flaky.slow(4, failure="no capacity" if doing == "Failed" else None)
    if doing == "Updating":
        account.client("sagemaker").update_endpoint(EndpointName="byoc-dogs", EndpointConfigName="byoc-dogs-now")
    else:
        deployed(account)
    ended = call(cleanup, "byoc-dogs", "--yes")
    assert ended.code == 0, ended.err
    said = ended.err.splitlines()
    assert f"byoc-dogs is still {'Creating' if doing == 'Failed' else doing}: waiting until it can be deleted" in said
    assert "byoc-dogs: Deleting, 0:00 min" in said
    assert said.index("deleted endpoint byoc-dogs") < said.index("deleted configuration byoc-dogs")
    assert there(account) == NOTHING


@pytest.mark.parametrize("fault", ["throttle", "break_before", "break_after"])
def test_cleanup_tries_again(account: Session, flaky: FlakyAws, call: Call, fault: str) -> None:
    deployed(account)
    flaky.slow(1)
    for operation in ("ListEndpoints", "DescribeEndpoint", "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"):
        getattr(flaky, fault)(operation)
    call(cleanup, "byoc-dogs", "--yes").ends(0)
    assert there(account) == NOTHING
