"""The Docker engine, through its command line: images of this very tree, and containers that a test ends itself."""

import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from local_test.engine import native as native
from tests.conftest import need
from tests.docker.index import torch_index

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "build.sh"
# The base that .ci/run makes where no image can be pulled; used here where it exists.
LOCAL_BASE = "byoc-base:bookworm"
# Images that a test builds for itself and removes.
TEST_TAG = "byoc-test"
# Everything that a build reads.
TREE = ("docker", "container_serve", "container_train", "scripts", "LICENSE", ".dockerignore")


@functools.cache
def available() -> bool:
    """Return True if a Docker daemon answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True).returncode == 0


def docker(*args: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def inspect(image: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(docker("image", "inspect", image).stdout)[0]
    return description


def build_options() -> list[str]:
    """Options of scripts/build.sh for this machine, where the caller has not set them in the environment."""
    options: list[str] = []
    if docker("image", "inspect", LOCAL_BASE, check=False).returncode == 0:
        for kind in ("train", "serve"):
            if not os.environ.get(f"BYOC_BASE_{kind.upper()}"):
                options += [f"--base-{kind}", LOCAL_BASE]
        if not os.environ.get("BYOC_NETWORK"):
            options += ["--network", "host"]
    bundle = os.environ.get("SSL_CERT_FILE", "")
    if not os.environ.get("BYOC_CA_BUNDLE") and Path(bundle).is_file():
        options += ["--ca-bundle", bundle]
    return options


def copy_tree(target: Path) -> Path:
    """A copy of what a build reads, to be changed and built."""
    target.mkdir(parents=True, exist_ok=True)
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


def set_version(tree: Path, version: str) -> None:
    """Another version for a copy of the repository."""
    module = tree / "container_serve" / "__init__.py"
    module.write_text(re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', module.read_text(), flags=re.M))


def content(image: str) -> str:
    return subprocess.run([BUILD, "--content", image], capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def image(name: str) -> str:
    """The image `name` (train, serve, serve-torch) made of the files as they are now; built if there is none yet.

    A name rather than an id: building another revision of the same files moves the name to an image that is as good.
    """
    need(available(), "a Docker engine")
    found = tagged(name)
    if not found:
        with torch_index() if name == "serve-torch" else nullcontext("") as index:
            if index is None:
                # Not need(): nothing that CI could install provides this wheel.
                pytest.skip("needs PyTorch's package index, or a CPU wheel of torch 2.13.0 in pip's find-links")
            options = [*build_options(), *(["--torch-index", index] if index else [])]
            built = subprocess.run([BUILD, name, "--no-sbom", *options], capture_output=True, text=True, timeout=1500)
        reason = "\n".join(built.stderr.splitlines()[-15:])
        need(built.returncode == 0, f"the image byoc-{name}, which scripts/build.sh did not build:\n{reason}")
        found = tagged(name)
    return found[0]


def tagged(name: str) -> list[str]:
    """Names of the image made of the files as they are now, if there is one; other tests give it further ones."""
    filters = (f"label=byoc.content={content(name)}", f"label=byoc.architecture={native()}")
    listing = (
        "images",
        *(word for label in filters for word in ("--filter", label)),
        "--format",
        "{{.Repository}}:{{.Tag}}",
    )
    candidates = docker(*listing).stdout.splitlines()
    return [found for found in candidates if found.startswith(f"byoc-{name}:") and content(name) in found]


def run(
    image: str, *command: str, options: tuple[str, ...] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """`docker run --rm IMAGE COMMAND`, without a network."""
    return docker("run", "--rm", "--network", "none", *options, image, *command, check=check)


@contextmanager
def container(image: str, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """The id of a running container, removed at the end whatever has become of it."""
    identifier = docker("run", "--detach", *options, image, *command).stdout.strip()
    try:
        yield identifier
    finally:
        docker("rm", "--force", "--volumes", identifier, check=False)


def wait(identifier: str, seconds: float) -> int:
    """The exit code of a container that ends by itself; fails when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = json.loads(docker("inspect", "--format", "{{json .State}}", identifier).stdout)
        if not state["Running"]:
            return int(state["ExitCode"])
        time.sleep(0.1)
    raise AssertionError(f"still running after {seconds} s:\n{logs(identifier)}")


def logs(identifier: str) -> str:
    done = docker("logs", identifier)
    return done.stdout + done.stderr
