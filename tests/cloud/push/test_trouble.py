"""scripts/push.sh where a push breaks off, credentials are missing, or a registry denies something."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.aws.errors import CloudError
from scripts.images import engine as docker_engine
from scripts.images import push as module
from scripts.images.engine import AccessDenied, RetryableError
from tests.cloud import stand_in
from tests.cloud.answers import error as denied
from tests.cloud.answers import give
from tests.cloud.conftest import ACCOUNT
from tests.cloud.push.conftest import NAME, TARGET, Make, Push, start
from tests.cloud.stand_in import Gate, Server, StandIn
from tests.conftest import Patch
from tests.docker import engine

pytestmark = pytest.mark.docker


# Pushes that break off


@pytest.fixture
def gate(server: Server, ecr: StandIn) -> Iterator[Gate]:
    """Docker reaches the registry through it; half of a layer passes until it is opened."""
    gate = Gate(server.port, 1_000_000)
    ecr.host = gate.host
    yield gate
    gate.close()


@pytest.fixture
def in_the_middle(gate: Gate) -> Callable[[Callable[[], None]], Any]:
    """Has something done in a thread when the push has got to its middle, and opens the gate then."""

    def then(action: Callable[[], None]) -> threading.Thread:
        def wait() -> None:
            assert gate.reached.wait(60)
            action()
            gate.opened.set()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    return then


def test_a_registry_that_dies_and_comes_back(
    ecr: StandIn, gate: Gate, make: Make, push: Push, in_the_middle: Any
) -> None:
    identifier = make(size=2_000_000)

    def restart() -> None:
        ecr.registry.kill()
        ecr.registry.start()

    thread = in_the_middle(restart)
    ended = push(TARGET).ends(0)
    thread.join()
    assert ended.out.startswith(f"{gate.host}/{NAME}@sha256:")
    [tag] = ecr.registry.tags(NAME)
    assert ecr.registry.manifest(NAME, tag)["config"]["digest"] == identifier


@pytest.mark.parametrize("pushed", [True, False])
def test_a_push_whose_last_answer_is_lost(
    ecr: StandIn, make: Make, push: Push, monkeypatch: Patch, pushed: bool
) -> None:
    """The client sends the manifest again, and is told of its own tag that it is there, and cannot be moved."""
    make()
    original = docker_engine.push

    def lose(*arguments: Any) -> None:
        if pushed:
            original(*arguments)
        raise docker_engine.explain("the image tag already exists: the tag is immutable", ecr.host)

    monkeypatch.setattr(docker_engine, "push", lose)
    ended = push(TARGET)
    assert ended.code == (0 if pushed else 1)
    assert ended.out.startswith(f"{ecr.host}/{NAME}@sha256:") == pushed
    assert ("another push was faster" in ended.err) != pushed


def test_a_registry_that_is_gone_for_good(elsewhere: str, server: Server, make: Make, push: Push) -> None:
    make()
    server.kill()
    ended = push(TARGET, "--registry", elsewhere).ends(1, "connection refused: call this again")
    assert ended.err.count("trying again") == len(module.PAUSES)
    server.start()
    assert push(TARGET, "--registry", elsewhere).code == 0


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_broken_off_and_called_again(
    server: Server, tree: Path, make: Make, tmp_path: Path, monkeypatch: Patch, blow: signal.Signals
) -> None:
    identifier = make(size=2_000_000)
    gate = Gate(server.port, 1_000_000)
    folder = stand_in.logged_in(tmp_path / "docker", gate.host, stand_in.USER, server.password)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    try:
        broken = start(tree, TARGET, "--registry", gate.host)
        assert gate.reached.wait(60)
        if blow == signal.SIGTERM:  # to the script alone, as an orchestrator does; the others reach its children too
            broken.send_signal(blow)
        else:
            os.killpg(broken.pid, blow)
        _, said = broken.communicate(timeout=60)
        if blow != signal.SIGKILL:
            assert broken.returncode == 128 + blow
            assert said.splitlines()[-1].startswith("push.sh: broken off: call this again")
        gate.opened.set()
        again = start(tree, TARGET, "--registry", gate.host)
        out, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
        assert out.startswith(f"{gate.host}/{NAME}@sha256:")
        [tag] = server.tags(NAME)
        assert server.manifest(NAME, tag)["config"]["digest"] == identifier
    finally:
        gate.close()


# Credentials


def test_the_context_of_docker_s_configuration_counts_and_its_credentials_do_not(
    ecr: StandIn, make: Make, push: Push, tmp_path: Path, monkeypatch: Patch
) -> None:
    make()
    socket_of = engine.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout.strip()
    engine.docker("context", "create", "byoc-test", "--docker", f"host={os.environ.get('DOCKER_HOST') or socket_of}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    config = tmp_path / "docker" / "config.json"
    config.write_text(json.dumps({"currentContext": "byoc-test", "credsStore": "not-installed"}))
    assert push(TARGET).code == 0
    engine.docker("context", "create", "byoc-gone", "--docker", "host=tcp://127.0.0.1:9")
    config.write_text(json.dumps({"currentContext": "byoc-gone"}))
    assert push(TARGET).code == 1


@pytest.mark.parametrize("password", ["", "wrong"])
def test_elsewhere_without_a_login(elsewhere: str, make: Make, push: Push, tmp_path: Path, password: str) -> None:
    make()
    if password:
        stand_in.logged_in(tmp_path / "docker", elsewhere, stand_in.USER, password)
    else:
        (tmp_path / "docker" / "config.json").unlink()
    push(TARGET, "--registry", elsewhere).ends(1, f"`docker login {elsewhere}`")


# Errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AccessDenied("denied: User: ... is not authorized to perform: ecr:InitiateLayerUpload"), "scripts/iam/"),
        (RetryableError("unexpected EOF"), "unexpected EOF: call this again"),
    ],
)
def test_a_push_that_never_gets_through(
    ecr: StandIn, make: Make, push: Push, monkeypatch: Patch, error: Exception, said: str
) -> None:
    make()

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(docker_engine, "push", broken)
    push(TARGET).ends(1, said)


OPERATIONS = ("GetCallerIdentity", "DescribeRepositories", "CreateRepository", "PutLifecyclePolicy")


@pytest.mark.parametrize("operation", [*OPERATIONS, "GetAuthorizationToken"])
def test_a_call_that_is_denied(ecr: StandIn, make: Make, push: Push, operation: str, monkeypatch: Patch) -> None:
    make()
    give(monkeypatch, operation, denied("AccessDeniedException", f"not authorized to perform: {operation}"))
    push(TARGET).ends(1, f"{operation}: ", "scripts/iam/scripts.json")
    assert ecr.registry.uploads() == 0


def test_a_role_of_another_account(ecr: StandIn, push: Push, monkeypatch: Patch, calls: list[str]) -> None:
    monkeypatch.setenv("BYOC_ROLE", "arn:aws:iam::999999999999:role/byoc-sagemaker")
    push(TARGET).ends(1, f"the credentials are of the account {ACCOUNT}")
    assert calls == ["sts:GetCallerIdentity"]


def test_no_daemon(ecr: StandIn, push: Push, monkeypatch: Patch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    push(TARGET).ends(1, "no Docker daemon answers: install Docker, or start it")


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ("tag invalid: The image tag 'dev' already exists ... because the tag is immutable.", CloudError, "--tag"),
        ("denied: User: ann is not authorized to perform: ecr:InitiateLayerUpload on resource: x", AccessDenied, ""),
        ("unauthorized: authentication required", AccessDenied, ""),
        ("error parsing HTTP 403 response body: invalid character '<'", AccessDenied, ""),
        ("denied: Your authorization token has expired. Reauthenticate and try again.", RetryableError, ""),
        ("write /var/lib/docker/tmp/x: no space left on device", CloudError, "docker system prune"),
        ('Get "https://r:5000/v2/": http: server gave HTTP response to HTTPS client', CloudError, "list r:5000 in"),
        ("x509: certificate signed by unknown authority", CloudError, "/etc/docker/certs.d/r:5000/ca.crt"),
        ("name unknown: The repository with name 'x' does not exist in the registry", CloudError, "make the repo"),
        ("received unexpected HTTP status: 503 Service\nUnavailable", RetryableError, ""),
    ],
)
def test_what_the_engine_says(said: str, kind: type[CloudError], remedy: str) -> None:
    found = docker_engine.explain(said, "r:5000")
    assert type(found) is kind
    assert remedy in str(found)
    assert "\n" not in str(found)
