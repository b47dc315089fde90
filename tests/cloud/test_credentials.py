"""Docker's credentials: found where `docker login` leaves them, given to single calls without a trace."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.aws.errors import CloudError
from scripts.images import credentials
from scripts.images.credentials import Credentials

HOST = "registry.example.com:5000"
ANN = base64.b64encode(b"ann:se:cret").decode()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the client's configuration."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.mark.parametrize(
    ("auths", "host", "expected"),
    [
        ({HOST: {"auth": ANN}}, HOST, Credentials("ann", "se:cret")),
        ({f"https://{HOST}/v1/": {"auth": ANN}}, HOST, Credentials("ann", "se:cret")),
        ({"https://index.docker.io/v1/": {"auth": ANN}}, "docker.io", Credentials("ann", "se:cret")),
        ({HOST: {"auth": ANN, "identitytoken": "t0"}}, HOST, Credentials("", "", "t0")),
        ({HOST: {"auth": "?"}}, HOST, None),
        ({HOST: {}}, HOST, None),
        ({"other.example.com": {"auth": ANN}}, HOST, None),
        ({}, HOST, None),
    ],
)
def test_from_the_file(docker: Path, auths: dict[str, Any], host: str, expected: Credentials | None) -> None:
    (docker / "config.json").write_text(json.dumps({"auths": auths}))
    assert credentials.of(host) == expected


def test_no_file(docker: Path) -> None:
    assert credentials.of(HOST) is None


def test_a_file_that_cannot_be_read(docker: Path) -> None:
    (docker / "config.json").write_text("{")
    with pytest.raises(CloudError, match=r"Docker's configuration .*config\.json cannot be read"):
        credentials.of(HOST)


@pytest.mark.parametrize("config", [{"credsStore": "test"}, {"credHelpers": {HOST: "test"}, "credsStore": "none"}])
def test_from_a_helper(docker: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    (docker / "config.json").write_text(json.dumps(config))
    helper = docker / "docker-credential-test"
    monkeypatch.setenv("PATH", f"{docker}:/usr/bin:/bin")

    def answers(text: str, code: int = 0) -> None:
        helper.write_text(f"#!/bin/sh\n[ $1 = get ] && [ $(cat) = {HOST} ] || exit 3\necho '{text}'\nexit {code}\n")
        helper.chmod(0o755)

    answers('{"Username": "ann", "Secret": "secret"}')
    assert credentials.of(HOST) == Credentials("ann", "secret")
    answers('{"Username": "<token>", "Secret": "t0"}')
    assert credentials.of(HOST) == Credentials("", "", "t0")
    answers("credentials not found in native keychain", 1)
    assert credentials.of(HOST) is None
    answers("ann")
    with pytest.raises(CloudError, match="gave no JSON"):
        credentials.of(HOST)
    helper.unlink()
    with pytest.raises(CloudError, match="docker-credential-test cannot be asked"):
        credentials.of(HOST)


def test_given_to_one_call(docker: Path) -> None:
    """The rest of the user's configuration counts as ever; credentials of other registries are not copied about."""
    (docker / "contexts").mkdir()
    (docker / "contexts" / "one").write_text("context")
    kept = {"currentContext": "remote", "proxies": {"default": {"httpProxy": "http://proxy:3128"}}}
    mine = {**kept, "auths": {HOST: {"auth": ANN}}, "credsStore": "desktop", "credHelpers": {"x": "y"}}
    (docker / "config.json").write_text(json.dumps(mine))
    with credentials.given(HOST, Credentials("AWS", 'a"b%s\\c')) as environment:
        folder = Path(environment["DOCKER_CONFIG"])
        assert folder != docker
        assert json.loads((folder / "config.json").read_text()) == {**kept, "credHelpers": {HOST: "byoc"}}
        assert (folder / "contexts" / "one").read_text() == "context"
        command = ["docker-credential-byoc", "get"]
        done = subprocess.run(command, env=environment, input=HOST, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"ServerURL": HOST, "Username": "AWS", "Secret": 'a"b%s\\c'}
        for operation in ("store", "erase", "list"):
            done = subprocess.run(
                ["docker-credential-byoc", operation], env=environment, input=HOST, capture_output=True, text=True
            )
            assert (done.returncode, done.stdout) == (0, "")
    assert not folder.exists()
    assert (docker / "contexts" / "one").read_text() == "context"
    assert json.loads((docker / "config.json").read_text()) == mine


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("ann", "secret", "secret"))
