"""local_test/setup.sh cloud: a small environment in which the scripts do everything that needs no SDK."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cloud.conftest import ACCOUNT, REGION, ROLE

ROOT = Path(__file__).parents[2]
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-"
MAX_MB = 400
ACCOUNT_FLAGS = ("--role", ROLE, "--region", REGION, "--dry-run")
CALLS = {
    "train.py": ("--image", f"{IMAGE}train:1", "--data", "s3://my-data/dogs", *ACCOUNT_FLAGS),
    "tune.py": ("--image", f"{IMAGE}train:1", "--data", "s3://my-data/dogs", *ACCOUNT_FLAGS),
    "deploy.py": ("--image", f"{IMAGE}serve:1", "--job", "byoc-1", *ACCOUNT_FLAGS),
    "cleanup.py": ("byoc-1", "--region", REGION, "--dry-run"),
    "make_role.py": ACCOUNT_FLAGS,
    "push.sh": ("--region", REGION, "--dry-run"),
}


def test_it_has_neither_torch_nor_the_sdk_and_the_same_versions() -> None:
    def versions(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "local_test" / name).read_text(), re.MULTILINE))

    small, whole = versions("cloud.lock"), versions("requirements.lock")
    assert not {"torch", "torchvision", "sagemaker", "openvino", "nncf"} & set(small)
    assert {name: whole.get(name) for name in small} == small


@pytest.mark.full
@pytest.mark.parametrize("program", CALLS)
def test_dry_runs_in_it(program: str, tmp_path: Path) -> None:
    subprocess.run([ROOT / "local_test" / "setup.sh", "cloud"], check=True, capture_output=True)
    environment = ROOT / ".venv-cloud"
    size = int(subprocess.run(["du", "-sm", environment], capture_output=True, text=True).stdout.split()[0])
    assert size <= MAX_MB
    script = ROOT / "scripts" / program
    python = environment / "bin" / "python"
    command = [python, "-P", "-m", "scripts.images.push"] if program == "push.sh" else [python, script]
    done = subprocess.run(
        [*command, *CALLS[program]], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
