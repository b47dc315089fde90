"""Credentials of image registries: the user's own, as `docker login` left them, and ours, given to single calls."""

import base64
import binascii
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.aws.errors import CloudError, one_line

HELPER = "byoc"  # docker-credential-byoc lies beside this file
HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_BY_TOKEN = "<token>"  # what helpers give as the user name where the password is an identity token


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)  # in place of both, for registries that sign in through OAuth


def folder() -> Path:
    """Where the Docker client keeps its configuration."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def configuration() -> dict[str, Any]:
    """The client's configuration; empty where there is none."""
    path = folder() / "config.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CloudError(f"Docker's configuration {path} cannot be read: {one_line(str(error))}") from None
    return content if isinstance(content, dict) else {}


def of(host: str) -> Credentials | None:
    """What `docker login HOST` left, in the file or in a credential helper; None where it was not called."""
    config = configuration()
    key = _HUB_KEY if host == HUB else host
    helper = config.get("credHelpers", {}).get(key) or config.get("credsStore")
    found = _ask(helper, key) if helper else None
    if found is None:
        for name, entry in config.get("auths", {}).items():
            if name == key or name.removeprefix("https://").removeprefix("http://").split("/")[0] == host:
                found = _decoded(entry) or found
    return found


@contextmanager
def given(host: str, credentials: Credentials) -> Iterator[dict[str, str]]:
    """An environment in which Docker uses these credentials for `host`, and all else as the user has it.

    They stand in this environment only. The client's folder (contexts, plugins, TLS certificates) is linked; of its
    configuration everything counts but the credentials of other registries.
    """
    config = {key: value for key, value in configuration().items() if key not in ("auths", "credsStore", "credHelpers")}
    config["credHelpers"] = {host: HELPER}
    with tempfile.TemporaryDirectory(prefix="byoc-docker-") as name:
        temporary = Path(name)
        if folder().is_dir():
            for entry in folder().iterdir():
                if entry.name != "config.json":
                    (temporary / entry.name).symlink_to(entry.resolve())
        (temporary / "config.json").write_text(json.dumps(config))
        answer = {"ServerURL": host, "Username": credentials.user, "Secret": credentials.password}
        yield {
            **os.environ,
            "DOCKER_CONFIG": name,
            "PATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "BYOC_DOCKER_CREDENTIALS": json.dumps(answer),
        }


def _ask(helper: str, key: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=key, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CloudError(f"Docker's credential helper {program} cannot be asked: {one_line(str(error))}") from None
    if done.returncode != 0:
        return None  # that is how helpers say that they have none
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise CloudError(f"Docker's credential helper {program} gave no JSON with Username and Secret") from None
    return Credentials("", "", secret) if user == _BY_TOKEN else Credentials(user, secret)


def _decoded(entry: dict[str, str]) -> Credentials | None:
    if entry.get("identitytoken"):
        return Credentials("", "", entry["identitytoken"])
    try:
        user, separator, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password) if separator else None
