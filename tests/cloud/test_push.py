"""scripts/push.sh: images of a few megabytes, pushed by Docker to a real registry; ECR's requests go to moto."""

import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import boto3
import pytest

from local_test import engine as local_engine
from scripts.aws.errors import CloudError
from scripts.aws.names import Image
from scripts.console.command import run
from scripts.images import engine as docker_engine
from scripts.images import push
from scripts.images.engine import AccessDenied, LocalImage, RetryableError
from scripts.images.registry import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from tests.cloud import stand_in
from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.stand_in import Gate, Server, StandIn
from tests.conftest import need
from tests.docker import engine

TARGET = "train"
NAME = "byoc-train"
VERSION = f"0.0.0-test.{secrets.token_hex(4)}"
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a version of its own, so that its images have names that no others have."""
    need(engine.available(), "a Docker engine")
    root = engine.copy_tree(tmp_path_factory.mktemp("tree"))
    engine.set_version(root, VERSION)
    (root / ".venv").symlink_to(engine.ROOT / ".venv")
    results = shutil.ignore_patterns("__pycache__", "out*", "tuning")
    shutil.copytree(engine.ROOT / "local_test", root / "local_test", ignore=results)
    return root


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with stand_in.server(tmp_path) as running:
        yield running


@pytest.fixture
def ecr(aws: boto3.Session, server: Server, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """ECR's stand-in for this process; Docker has no credentials of its own."""
    found = StandIn(server, server.host)
    stand_in.install(monkeypatch, found)
    at(tree, monkeypatch)
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return found


@pytest.fixture
def elsewhere(server: Server, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another registry, in which Docker is logged in."""
    at(tree, monkeypatch)
    folder = stand_in.logged_in(tmp_path / "docker", server.host, stand_in.USER, server.password)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return server.host


def at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "ROOT", tree)
    monkeypatch.setattr(push, "__version__", VERSION)
    monkeypatch.setattr(push, "PAUSES", (0.0, 0.0, 0.0))


Make = Callable[..., str]


@pytest.fixture
def make(tree: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes "the image of the files as they are now", of random bytes; another one with every call. Gives its id."""
    made: list[str] = []

    def one(target: str = TARGET, size: int = 100_000, architecture: str = "amd64", said: str | None = None) -> str:
        content = content_of(tree, target)
        name = f"byoc-{target}:{VERSION}-{content}-{said or architecture}"
        labels = {"byoc.content": content, "byoc.architecture": said or architecture}
        identifier = load(tmp_path / "image.tar", name, size, architecture, labels)
        made.append(identifier)
        return identifier

    yield one
    for identifier in made:
        engine.docker("image", "rm", "--force", identifier, check=False)


def load(path: Path, name: str, size: int, architecture: str, labels: dict[str, str]) -> str:
    """An image of one random file, as `docker save` would have written it; its id."""
    layer = io.BytesIO()
    add(layer, {"file": secrets.token_bytes(size)})
    config = json.dumps(
        {
            "os": "linux",
            "architecture": architecture,
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        }
    ).encode()
    identifier = hashlib.sha256(config).hexdigest()
    listing = [{"Config": f"{identifier}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with path.open("wb") as file:
        files = {"manifest.json": json.dumps(listing).encode(), f"{identifier}.json": config}
        add(file, {**files, "layer.tar": layer.getvalue()})
    engine.docker("load", "--input", str(path))
    return f"sha256:{identifier}"


def add(file: IO[bytes], contents: Mapping[str, bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@functools.cache
def content_of(tree: Path, target: str) -> str:
    done = subprocess.run([tree / "scripts" / "build.sh", "--content", target], capture_output=True, text=True)
    return done.stdout.strip()


def call(*arguments: str) -> int:
    return run("push.sh", push.main, arguments)


def start(tree: Path, *arguments: str) -> "subprocess.Popen[str]":
    """push.sh as a program, in a group of its own."""
    command = [str(tree / "scripts" / "push.sh"), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, env=os.environ
    )


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on standard error; nothing may be on standard output, and no traceback anywhere."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    line = captured.err.splitlines()[-1]
    assert line.startswith("push.sh: ")
    return line


# What is pushed, and what is not


def test_pushed_and_the_second_time_nothing_is_done(
    ecr: StandIn, make: Make, aws: boto3.Session, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = make()
    assert call(TARGET) == 0
    first = capsys.readouterr()
    assert re.fullmatch(rf"{ecr.host}/{NAME}@sha256:[0-9a-f]{{64}}\n", first.out)
    assert f"created the repository {NAME} in {REGION}, account {ACCOUNT}" in first.err
    # What train.py and deploy.py take, had ECR been ECR.
    image = Image.parse(ecr.uri(first.out.strip()), REGION)
    [tag] = ecr.registry.tags(NAME)
    assert tag.endswith(f"-{identifier.removeprefix('sha256:')[:8]}")
    assert ecr.registry.manifest(NAME, tag)["config"]["digest"] == identifier
    assert image.repository == NAME

    sent = ecr.registry.uploads()
    calls.clear()
    assert call(TARGET, "--json") == 0
    second = capsys.readouterr()
    assert json.loads(second.out) == {
        "images": [
            {
                "target": TARGET,
                "uri": first.out.strip(),
                "repository": f"{ecr.host}/{NAME}",
                "tag": tag,
                "digest": image.digest,
                "pushed": False,
            }
        ]
    }
    assert ecr.registry.uploads() == sent
    assert "already" in second.err
    assert not {"ecr:CreateRepository", "ecr:PutLifecyclePolicy"} & set(calls)


def test_both_images_are_pushed_where_none_is_named(
    ecr: StandIn, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("train")
    make("serve")
    assert call() == 0
    repositories = [line.partition("@")[0] for line in capsys.readouterr().out.splitlines()]
    assert repositories == [f"{ecr.host}/byoc-train", f"{ecr.host}/byoc-serve"]


def test_another_build_of_the_same_files_has_a_tag_of_its_own(ecr: StandIn, make: Make) -> None:
    make()
    assert call(TARGET) == 0
    make()
    assert call(TARGET) == 0
    assert len(ecr.registry.tags(NAME)) == 2


def test_a_tag_that_cannot_be_moved_is_not_tried(ecr: StandIn, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    assert call(TARGET, "--tag", "dev") == 0
    uri = capsys.readouterr().out.strip()
    make()
    sent = ecr.registry.uploads()
    assert call(TARGET, "--tag", "dev") == 1
    line = error(capsys)
    assert "another image" in line
    assert "--tag" in line
    assert uri in line
    assert ecr.registry.uploads() == sent


def test_elsewhere_a_tag_is_moved_and_that_is_said(
    elsewhere: str, server: Server, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    assert call(TARGET, "--registry", f"{elsewhere}/team/", "--tag", "dev") == 0
    first = capsys.readouterr().out
    assert first.startswith(f"{elsewhere}/team/{NAME}@sha256:")
    identifier = make()
    assert call(TARGET, "--registry", f"{elsewhere}/team", "--tag", "dev") == 0
    assert f"was another image, {first.strip().partition('@')[2]}" in capsys.readouterr().err
    assert server.manifest(f"team/{NAME}", "dev")["config"]["digest"] == identifier


def test_what_is_not_built_is_built(
    elsewhere: str, tree: Path, make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    identifier = make()
    name = engine.inspect(identifier)["RepoTags"][0]
    engine.docker("tag", name, "byoc-test-aside:now")
    engine.docker("rmi", name)
    # A build of seconds in the place of one of minutes: the content is the real one's.
    root = tmp_path / "tree"
    (root / "scripts").mkdir(parents=True)
    script = root / "scripts" / "build.sh"
    script.write_text(
        f"#!/bin/sh\n[ $1 != --content ] || exec {tree}/scripts/build.sh $@\n"
        f"echo a table\nexec docker tag byoc-test-aside:now {name}\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(local_engine, "ROOT", root)
    try:
        assert call(TARGET, "--registry", elsewhere) == 0
        captured = capfd.readouterr()
        assert captured.out.startswith(f"{elsewhere}/{NAME}@sha256:")
        assert "byoc-train is not built yet: building it" in captured.err
        assert "a table" in captured.err

        engine.docker("rmi", "--force", identifier)
        script.write_text(script.read_text().replace("exec docker tag", "exit 1 #"))
        assert call(TARGET, "--registry", elsewhere) == 1
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "push.sh: byoc-train was not built" in captured.err
    finally:
        engine.docker("rmi", "byoc-test-aside:now", check=False)


def test_an_image_for_another_platform_is_refused_before_anything_is_sent(
    elsewhere: str, server: Server, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make(architecture="arm64", said="amd64")
    assert call(TARGET, "--registry", elsewhere) == 1
    assert "is for linux/arm64, not linux/amd64: build it again with scripts/build.sh" in error(capsys)
    assert server.uploads() == 0


def test_of_two_images_that_of_the_platform_asked_for_is_pushed(elsewhere: str, server: Server, make: Make) -> None:
    identifiers = {architecture: make(architecture=architecture) for architecture in ("amd64", "arm64")}
    for architecture, identifier in identifiers.items():
        assert call(TARGET, "--registry", elsewhere, "--platform", f"linux/{architecture}", "--tag", architecture) == 0
        pushed = server.manifest(f"team/byoc-{TARGET}", architecture)["config"]["digest"]
        assert pushed == identifier


def test_an_image_that_the_engine_keeps_as_oci_is_refused_before_anything_is_sent(
    elsewhere: str, server: Server, make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    original = docker_engine.find_image

    def as_containerd_says(client: Any, name: str) -> LocalImage | None:
        found = original(client, name)
        return found and replace(found, media_type=OCI_INDEX)

    monkeypatch.setattr(docker_engine, "find_image", as_containerd_says)
    assert call(TARGET, "--registry", elsewhere) == 1
    assert f"is stored as {OCI_INDEX}" in error(capsys)
    assert server.uploads() == 0


# What lies in the registry afterwards


def lies_as(server: Server, kind: str, reference: str) -> None:
    """Put in the place of what was pushed what other engines or builders would have left."""
    repository, _, tag = reference.partition("/")[2].rpartition(":")
    manifest = server.manifest(repository, tag)
    as_oci = {
        **manifest,
        "mediaType": OCI_MANIFEST,
        "config": {**manifest["config"], "mediaType": "application/vnd.oci.image.config.v1+json"},
    }
    if kind == OCI_MANIFEST:
        server.put_manifest(repository, tag, as_oci)
    elif kind in (OCI_INDEX, DOCKER_LIST):
        digest = server.put_manifest(repository, f"{tag}-one", as_oci if kind == OCI_INDEX else manifest)
        entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        server.put_manifest(repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]})
    else:
        config = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
        entry = {**manifest["config"], "digest": server.put_blob(repository, config), "size": len(config)}
        server.put_manifest(repository, tag, {**manifest, "config": entry})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OCI_MANIFEST, f"lies there as {OCI_MANIFEST}, and SageMaker takes application/vnd.docker"),
        (OCI_INDEX, f"lies there as {OCI_INDEX}"),
        (DOCKER_LIST, f"lies there as {DOCKER_LIST}"),
        ("another", "is another image"),
    ],
)
def test_what_sagemaker_does_not_take_is_found_after_the_push(
    ecr: StandIn, make: Make, kind: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    original = docker_engine.push

    def pushes(client: Any, image: LocalImage, repository: str, tag: str, credentials: Any) -> None:
        original(client, image, repository, tag, credentials)
        lies_as(ecr.registry, kind, f"{repository}:{tag}")

    monkeypatch.setattr(docker_engine, "push", pushes)
    assert call(TARGET, "--tag", "one") == 1
    assert said in error(capsys)
    # And again where the tag is there already: not skipped, no advice to use it.
    assert call(TARGET, "--tag", "one") == 1
    line = error(capsys)
    assert said in line
    assert "--tag" in line or "build.sh" in line


def test_an_image_that_is_gone_after_the_push_is_not_reported_as_pushed(
    ecr: StandIn, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    monkeypatch.setattr(docker_engine, "push", lambda *_: None)
    assert call(TARGET) == 1
    assert "was pushed and is not there" in error(capsys)


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
    ecr: StandIn, gate: Gate, make: Make, in_the_middle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = make(size=2_000_000)

    def restart() -> None:
        ecr.registry.kill()
        ecr.registry.start()

    thread = in_the_middle(restart)
    assert call(TARGET) == 0
    thread.join()
    assert capsys.readouterr().out.startswith(f"{gate.host}/{NAME}@sha256:")
    [tag] = ecr.registry.tags(NAME)
    assert ecr.registry.manifest(NAME, tag)["config"]["digest"] == identifier


@pytest.mark.parametrize("pushed", [True, False])
def test_a_push_whose_last_answer_is_lost(
    ecr: StandIn, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pushed: bool
) -> None:
    """The client sends the manifest again, and is told of its own tag that it is there, and cannot be moved."""
    make()
    original = docker_engine.push

    def lose(*arguments: Any) -> None:
        if pushed:
            original(*arguments)
        raise docker_engine.explain("the image tag already exists: the tag is immutable", ecr.host)

    monkeypatch.setattr(docker_engine, "push", lose)
    assert call(TARGET) == (0 if pushed else 1)
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{ecr.host}/{NAME}@sha256:") == pushed
    assert ("another push was faster" in captured.err) != pushed


def test_a_registry_that_is_gone_for_good(
    elsewhere: str, server: Server, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    server.kill()
    assert call(TARGET, "--registry", elsewhere) == 1
    captured = capsys.readouterr()
    assert captured.err.count("trying again") == len(push.PAUSES)
    assert "connection refused: call this again" in captured.err.splitlines()[-1]
    server.start()
    assert call(TARGET, "--registry", elsewhere) == 0


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_broken_off_and_called_again(
    server: Server, tree: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blow: signal.Signals
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
    ecr: StandIn, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    socket_of = engine.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout.strip()
    engine.docker("context", "create", "byoc-test", "--docker", f"host={os.environ.get('DOCKER_HOST') or socket_of}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    config = tmp_path / "docker" / "config.json"
    config.write_text(json.dumps({"currentContext": "byoc-test", "credsStore": "not-installed"}))
    assert call(TARGET) == 0
    engine.docker("context", "create", "byoc-gone", "--docker", "host=tcp://127.0.0.1:9")
    config.write_text(json.dumps({"currentContext": "byoc-gone"}))
    assert call(TARGET) == 1


@pytest.mark.parametrize("password", ["", "wrong"])
def test_elsewhere_without_a_login(
    elsewhere: str, make: Make, tmp_path: Path, password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    if password:
        stand_in.logged_in(tmp_path / "docker", elsewhere, stand_in.USER, password)
    else:
        (tmp_path / "docker" / "config.json").unlink()
    assert call(TARGET, "--registry", elsewhere) == 1
    assert f"`docker login {elsewhere}`" in error(capsys)


# Errors


@pytest.mark.parametrize(
    ("error_of_the_push", "said"),
    [
        (AccessDenied("denied: User: ... is not authorized to perform: ecr:InitiateLayerUpload"), "scripts/iam/"),
        (RetryableError("unexpected EOF"), "unexpected EOF: call this again"),
    ],
)
def test_a_push_that_never_gets_through(
    ecr: StandIn, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error_of_the_push: Exception, said: str,
) -> None:  # fmt: skip
    make()

    def broken(*_: object) -> None:
        raise error_of_the_push

    monkeypatch.setattr(docker_engine, "push", broken)
    assert call(TARGET) == 1
    assert said in error(capsys)


OPERATIONS = ("GetCallerIdentity", "DescribeRepositories", "CreateRepository", "PutLifecyclePolicy")


@pytest.mark.parametrize("operation", [*OPERATIONS, "GetAuthorizationToken"])
def test_a_call_that_is_denied(
    ecr: StandIn, make: Make, operation: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    stand_in.deny(monkeypatch, operation)
    assert call(TARGET) == 1
    line = error(capsys)
    assert f"{operation}: " in line
    assert "scripts/iam/scripts.json" in line
    assert ecr.registry.uploads() == 0


def test_a_role_of_another_account(
    ecr: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    monkeypatch.setenv("BYOC_ROLE", "arn:aws:iam::999999999999:role/byoc-sagemaker")
    assert call(TARGET) == 1
    assert f"the credentials are of the account {ACCOUNT}" in error(capsys)
    assert calls == ["sts:GetCallerIdentity"]


def test_no_daemon(ecr: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert call(TARGET) == 1
    assert "no Docker daemon answers: install Docker, or start it" in error(capsys)


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
