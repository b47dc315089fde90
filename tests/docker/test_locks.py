"""The locks hold, by hash, what other processors and systems need: asked of the package index, nothing is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docker.engine import ROOT

UV = Path(sys.executable).parent / "uv"
# Source only, and none needs a compiler but sagemaker-training and pyinstrument-cext (docker/train.Dockerfile has one).
SOURCES = ("inotify-simple", "pyinstrument-cext", "retrying", "sagemaker-inference", "sagemaker-training")
LINUX, MAC = "aarch64-manylinux_2_36", "aarch64-apple-darwin"
IMAGES = ("docker/uv.lock", "docker/sbom.lock", "docker/serve.lock", "docker/train.lock")


def resolve(lock: str, platform: str, python: str) -> subprocess.CompletedProcess[str]:
    flags = ["--dry-run", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", "/nonexistent"]
    flags += [word for name in SOURCES for word in ("--no-binary", name)]
    # Wheels of this machine would win over the locked ones; torch's for macOS are for 14 and newer.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("FIND_LINKS")}
    return subprocess.run(
        [UV, "pip", "install", *flags, "--python-platform", platform, "--python-version", python, "-r", ROOT / lock],
        env={**environment, "MACOSX_DEPLOYMENT_TARGET": "14.0"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def index() -> None:
    done = resolve("docker/uv.lock", LINUX, "3.11")
    if "Request failed" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("needs a package index")


@pytest.mark.parametrize(
    ("lock", "platform", "python"),
    [(lock, LINUX, python) for lock in (*IMAGES, "local_test/requirements.lock") for python in ("3.11", "3.12")]
    + [(f"local_test/{name}.lock", MAC, "3.12") for name in ("requirements", "cloud")],
)
def test_a_lock_has_wheels_for_arm(lock: str, platform: str, python: str) -> None:
    done = resolve(lock, platform, python)
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr


def test_what_a_mac_lacks_is_what_the_documentation_says() -> None:
    """docs/local.md: on Python 3.11 gevent would be compiled."""
    done = resolve("local_test/requirements.lock", MAC, "3.11")
    assert done.returncode != 0
    assert re.search(r"gevent==\S+ has no usable wheels", done.stderr), done.stderr
    assert "Python 3.12" in (ROOT / "docs" / "local.md").read_text()


@pytest.mark.parametrize("lock", [*IMAGES, "docker/serve-torch.lock"])
def test_no_package_of_an_image_is_for_one_processor_only(lock: str) -> None:
    found = []
    for line in (ROOT / lock).read_text().splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            requirement = Requirement(line.rstrip(" \\"))
            linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"}
            marker = requirement.marker
            if marker and marker.evaluate({**linux, "platform_machine": "x86_64"}) != marker.evaluate(linux):
                found.append(requirement.name)
    assert found == []


def test_the_second_serving_target_has_the_hashes_of_torch_for_both_processors() -> None:
    block = (ROOT / "docker" / "serve-torch.lock").read_text().partition("\ntorch==")[2].partition("# via")[0]
    assert block.count("--hash=sha256:") >= 4  # Python 3.11 and 3.12, x86-64 and ARM
