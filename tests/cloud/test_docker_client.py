"""The Docker client: which one is taken, what its words mean, what a log shows of a push."""

import os
from pathlib import Path

import pytest

from scripts.aws.errors import CloudError
from scripts.images import docker
from scripts.images.distribution import Broken, Denied
from scripts.images.docker import Docker, LocalImage

IMAGE = LocalImage("byoc-train:1", "sha256:0", "linux/amd64", 5_557_000_000, 2, {}, None)


def client(folder: Path, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_first_client_that_its_daemon_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer clients refuse old daemons; another one may lie behind them."""
    too_new = client(tmp_path / "new", 'echo "client version 1.44 is too new" >&2; exit 1')
    old = client(tmp_path / "old", "echo 20.10.24")
    monkeypatch.setenv("PATH", f"{too_new.parent}:{old.parent}:/usr/bin:/bin")
    assert Docker.find().program == str(old)
    old.unlink()
    monkeypatch.setenv("PATH", f"{too_new.parent}:{old.parent}")
    with pytest.raises(CloudError, match=r"no Docker daemon answers: start Docker .*too new"):
        Docker.find()


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        (
            "tag invalid: The image tag 'dev' already exists in the 'byoc-train' repository and cannot be overwritten"
            " because the tag is immutable.",
            CloudError,
            "give another --tag",
        ),
        ("denied: User: ann is not authorized to perform: ecr:InitiateLayerUpload on resource: x", Denied, ""),
        ("no basic auth credentials", Denied, ""),
        ("unauthorized: authentication required", Denied, ""),
        ("error parsing HTTP 403 response body: invalid character '<'", Denied, ""),
        ("denied: Your authorization token has expired. Reauthenticate and try again.", Broken, ""),
        ("write /var/lib/docker/tmp/x: no space left on device", CloudError, "docker system prune"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", CloudError, "start Docker"),
        ('Get "https://r:5000/v2/": http: server gave HTTP response to HTTPS client', CloudError, "list r:5000 in"),
        ("x509: certificate signed by unknown authority", CloudError, "/etc/docker/certs.d/r:5000/ca.crt"),
        (
            "name unknown: The repository with name 'x' does not exist in the registry",
            CloudError,
            "make the repository",
        ),
        ("unexpected EOF", Broken, ""),
        ("write tcp 10.0.0.2:1->10.0.0.3:443: write: connection reset by peer", Broken, ""),
        ("received unexpected HTTP status: 503 Service Unavailable", Broken, ""),
        ("Get https://r:5000/v2/: net/http: TLS handshake\ntimeout", Broken, ""),
    ],
)
def test_what_the_client_says(said: str, kind: type[CloudError], remedy: str) -> None:
    error = docker.explain(said, "r:5000")
    assert type(error) is kind
    assert remedy in str(error)
    assert "\n" not in str(error)


def test_a_push_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What Docker prints without a terminal, line after line for every layer, is counted and not repeated."""
    go = tmp_path / "go"
    os.mkfifo(go)
    program = client(
        tmp_path / "bin",
        "[ $1 = push ] || exit 0\necho 'a: Preparing'\necho 'a: Layer already exists'\necho 'b: Pushing'\n"
        f"read x < {go}\necho 'b: Pushed'\n",
    )
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if line == "byoc-train:1: 1 of 2 layers are there" and lines.count(line) == 2:
            go.write_text("x\n")

    monkeypatch.setattr(docker, "progress", progress)
    monkeypatch.setattr(docker, "LOG_EVERY", 0.02)
    Docker(str(program)).push(IMAGE, "r:5000/x:1", dict(os.environ))
    assert set(lines) <= {f"byoc-train:1: {number} of 2 layers are there" for number in range(3)}
    assert capsys.readouterr().out == ""


def test_a_push_that_fails_says_why(tmp_path: Path) -> None:
    program = client(tmp_path, "[ $1 = push ] || exit 0\necho 'a: Preparing'\necho 'denied: no' >&2\nexit 1")
    with pytest.raises(Denied, match="denied: no"):
        Docker(str(program)).push(IMAGE, "r:5000/x:1", dict(os.environ))


def test_a_pull_takes_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gigabytes take minutes, and questions must not."""
    monkeypatch.setattr(docker, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(docker, "LOG_EVERY", 0.3)
    slow = Docker(str(client(tmp_path, "echo 'a: Pull complete'\nsleep 1\necho $1 $2 >&2\nexit $CODE")))
    monkeypatch.setenv("CODE", "0")
    assert slow.pull("r:5000/x:1") is None
    assert "r:5000/x:1: 1 layers are there" in capsys.readouterr().err
    monkeypatch.setenv("CODE", "1")
    assert slow.pull("r:5000/x:1") == "pull r:5000/x:1"
    with pytest.raises(CloudError, match=r"docker info gives no answer within 0.2 s: restart Docker"):
        slow.call("info")
    assert slow.call("stop", seconds=20.0).returncode == 1


@pytest.mark.parametrize(("number", "text"), [(5_557_000_000, "5.6 GB"), (712_000_000, "712.0 MB"), (10, "0.1 MB")])
def test_sizes(number: int, text: str) -> None:
    assert docker.sizes(number) == text


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("plain.example.com:5000", True),
        ("docker.io", False),
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("192.0.2.1:5000", False),
        ("no-such-host.invalid", False),
    ],
)
def test_registries_without_tls_are_those_of_the_engine(tmp_path: Path, host: str, expected: bool) -> None:
    config = (
        '{"IndexConfigs": {"docker.io": {"Secure": true}, "plain.example.com:5000": {"Secure": false}},'
        ' "InsecureRegistryCIDRs": ["127.0.0.0/8"]}'
    )
    program = client(tmp_path, f"echo '{config}'")
    assert Docker(str(program)).allows_insecure(host) is expected
