"""examples/sdk_v3.py in an environment of its own: the SDK's versions 2 and 3 cannot be installed side by side."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from boto3 import Session

from container_train.training.metrics import DEFINITIONS
from tests import trees
from tests.cloud.conftest import ROLE, TRAIN_IMAGE
from tests.conftest import need
from tests.docker import engine

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sdk_v3.py"


def test_what_it_needs_is_locked_with_hashes() -> None:
    asked = [re.split(r"[#=<>]", line)[0].strip() for line in EXAMPLE.with_suffix(".in").read_text().splitlines()]
    lock = EXAMPLE.with_suffix(".lock").read_text()
    assert set(filter(None, asked)) >= {"sagemaker-train"}
    for name in filter(None, asked):
        assert re.search(rf"^{re.escape(name)}==.+ \\\n    --hash=sha256:", lock, re.MULTILINE), name


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with what examples/sdk_v3.lock names."""
    venv, uv = tmp_path_factory.mktemp("v3") / "venv", str(Path(sys.executable).with_name("uv"))
    lock = ROOT / "examples" / "sdk_v3.lock"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "--require-hashes"]
    done = subprocess.run([*map(str, install), "-r", str(lock)], capture_output=True, text=True)
    need(done.returncode == 0, f"a package index with the SageMaker SDK's version 3 ({done.stderr[-300:]})")
    return str(venv / "bin" / "python")


def call(python: str, *arguments: object, **environment: str) -> str:
    """Return its output."""
    command = [python, str(EXAMPLE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.full
def test_it_creates_the_job_that_train_py_would(python: str, aws: Session) -> None:
    arguments = ("--image", TRAIN_IMAGE, "--role", ROLE, "--data", "s3://my-data/dogs", "--output", "s3://my-data/out")
    # The SDK draws what it says with rich, and moto's jobs end at once.
    call(python, *arguments, "--epochs", "3", "--lr", "0.01", AWS_DEFAULT_REGION=os.environ["AWS_REGION"])
    client = aws.client("sagemaker")
    (summary,) = client.list_training_jobs()["TrainingJobSummaries"]
    job = client.describe_training_job(TrainingJobName=summary["TrainingJobName"])
    assert job["HyperParameters"] == {"epochs": "3", "lr": "0.01"}
    assert job["AlgorithmSpecification"]["TrainingImage"] == TRAIN_IMAGE
    assert job["AlgorithmSpecification"]["MetricDefinitions"] == DEFINITIONS
    assert {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"] for one in job["InputDataConfig"]} == {
        name: f"s3://my-data/dogs/{name}" for name in ("train", "valid", "test")
    }


@pytest.mark.full
@pytest.mark.docker
def test_it_trains_in_a_container_on_this_machine(python: str, tmp_path: Path) -> None:
    image, data = engine.image("train"), trees.fill(tmp_path / "pets")
    words = [word for key, value in trees.SMALL.items() for word in (f"--{key}", value)]
    said = call(python, "--image", image, "--data", data, "--output", tmp_path, "--local", *words)
    assert "test_accuracy=" in said
    assert [path.name for path in tmp_path.rglob("model.*") if path.name in ("model.json", "model.tar.gz")]
