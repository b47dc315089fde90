"""For tests of scripts/push.sh: images of a few megabytes, a real registry; ECR's requests go to moto."""

import functools
import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest
from boto3 import Session

from local_test import engine as local_engine
from scripts.images import push as module
from tests.calls import Call, Ended
from tests.cloud import stand_in
from tests.cloud.stand_in import Server, StandIn
from tests.conftest import Patch, need
from tests.docker import engine

TARGET = "train"
NAME = "byoc-train"
VERSION = f"0.0.0-test.{secrets.token_hex(4)}"


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
def ecr(aws: Session, server: Server, tree: Path, tmp_path: Path, monkeypatch: Patch) -> StandIn:
    """ECR's stand-in for this process; Docker has no credentials of its own."""
    found = StandIn(server, server.host)
    stand_in.install(monkeypatch, found)
    at(tree, monkeypatch)
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return found


@pytest.fixture
def elsewhere(server: Server, tree: Path, tmp_path: Path, monkeypatch: Patch) -> str:
    """Another registry, in which Docker is logged in."""
    at(tree, monkeypatch)
    folder = stand_in.logged_in(tmp_path / "docker", server.host, stand_in.USER, server.password)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return server.host


def at(tree: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(local_engine, "ROOT", tree)
    monkeypatch.setattr(module, "__version__", VERSION)
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))


Make = Callable[..., str]
Push = Callable[..., Ended]


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


@pytest.fixture
def push(call: Call) -> Push:
    """Call push.sh; a failure is one line that says so, and nothing on standard output."""

    def made(*arguments: object) -> Ended:
        ended = call(module, *arguments)
        assert ended.code == 0 or (ended.out, ended.last.startswith("push.sh: ")) == ("", True)
        return ended

    return made


def start(tree: Path, *arguments: str) -> "subprocess.Popen[str]":
    """push.sh as a program, in a group of its own."""
    command = [str(tree / "scripts" / "push.sh"), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, env=os.environ
    )
