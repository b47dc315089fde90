"""examples/: the scripts run as a user runs them, on this machine and at moto's server; other commands as dry runs."""

import http.server
import json
import os
import re
import shlex
import socket
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import torchvision
import yaml
from boto3 import Session
from moto.sagemaker.models import sagemaker_backends

from local_test import pack
from scripts.aws.names import PROJECT_TAG
from tests import documents, trees
from tests.cloud import models
from tests.cloud.conftest import ACCOUNT, HOST, REGION, ROLE, TRAIN_IMAGE, put_image
from tests.cloud.flaky_aws import FlakyAws
from tests.conftest import Capture, Patch, need
from tests.contract.models import picture, write_model
from tests.contract.serving import free_port
from tests.docker import engine
from tests.test_docs import FIRST, VALUES, module

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOT_LISTED = {"README.md", "charts.py", "signs.py"}  # the notebook's


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A folder that looks like the root of a clone: what the examples leave is in there."""
    root = tmp_path / "clone"
    root.mkdir()
    for name in (".venv", "container_serve", "container_train", "docker", "examples", "local_test", "scripts"):
        (root / name).symlink_to(ROOT / name)
    monkeypatch.chdir(root)
    return root


def run(example: str, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [f"examples/{example}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def operations(said: str) -> list[str]:
    """The operations of the requests that were printed, each once."""
    return list(dict.fromkeys(re.findall(r'"operation": "(\w+)"', said)))


@pytest.fixture
def photo(here: Path) -> Path:
    (here / "dog.jpg").write_bytes(picture("red"))
    return here / "dog.jpg"


@pytest.fixture
def dogs(here: Path) -> Path:
    """A zip of class folders."""
    trees.fill(here / "images")
    with zipfile.ZipFile(here / "dogs.zip", "w") as archive:
        for file in sorted((here / "images").rglob("*.jpg")):
            archive.write(file, file.relative_to(here / "images"))
    return here / "dogs.zip"


def test_every_example_is_listed() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=EXAMPLES, capture_output=True)
    files = {name for name in listed.stdout.decode().split() if not name.endswith((".in", ".lock"))}
    assert set(documents.links(EXAMPLES / "README.md")) == files - NOT_LISTED


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_a_call_without_arguments_is_answered_with_the_right_ones(here: Path, example: str) -> None:
    said = run(example, code=2).stderr
    assert f"  examples/{example} " in said
    assert not re.search(r"^#|unbound", said, re.MULTILINE)


def test_dogs_as_a_dry_run_prints_requests_and_needs_no_account(dogs: Path, photo: Path) -> None:
    uris = (VALUES["TRAIN_URI"], VALUES["SERVE_URI"])
    bucket = VALUES["BUCKET"]
    said = run("dogs.sh", *uris, dogs, photo, "--dry-run", AWS_REGION=REGION, BYOC_ROLE=ROLE, BYOC_BUCKET=bucket)
    found = operations(said.stdout)
    assert [one for one in found if one.startswith(("CreateTraining", "CreateEndpoint", "DeleteEndpoint"))] == [
        "CreateTrainingJob",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
    ]


@pytest.fixture
def pushed(aws: Session, image: None) -> tuple[str, str]:
    """URIs of both images, which lie in ECR."""
    put_image(aws, "byoc-serve", "0.1.0-abc")
    return TRAIN_IMAGE, f"{HOST}/byoc-serve:0.1.0-abc"


@pytest.fixture
def training(aws: Session, flaky: FlakyAws, tmp_path: Path) -> None:
    """The job that is created leaves a model."""
    pack.pack(models.folder(tmp_path / "model"), tmp_path / "model.tar.gz")

    def train() -> None:
        (job,) = sagemaker_backends[ACCOUNT][REGION].training_jobs.values()
        bucket, _, key = job.model_artifacts["S3ModelArtifacts"].removeprefix("s3://").partition("/")
        aws.client("s3").upload_file(str(tmp_path / "model.tar.gz"), bucket, key)

    flaky.after["CreateTrainingJob"] = train


def test_dogs_from_the_zip_to_an_answer_and_back(
    dogs: Path, photo: Path, pushed: tuple[str, str], training: None, aws: Session, flaky: FlakyAws
) -> None:
    flaky.prediction = {"predictions": [{"index": 0, "label": "Beagle", "probability": 0.75}], "model": {}}
    said = run("dogs.sh", *pushed, dogs, photo)
    assert "Beagle" in said.stdout
    client = aws.client("sagemaker")
    (job,) = client.list_training_jobs()["TrainingJobSummaries"]
    assert client.list_endpoints()["Endpoints"] == client.list_models()["Models"] == []
    tags = client.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert PROJECT_TAG in {tag["Key"] for tag in tags}


@pytest.mark.full  # half a minute for a line of the script
def test_dogs_leaves_no_endpoint_behind_a_step_that_fails(
    dogs: Path, pushed: tuple[str, str], training: None, aws: Session, here: Path
) -> None:
    said = run("dogs.sh", *pushed, dogs, here / "none.jpg", code=1)
    assert "none.jpg" in said.stderr
    assert aws.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_an_own_checkpoint_is_served_and_asked(here: Path, photo: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small(num_classes=3).state_dict(), here / "model.pth")
    (here / "classes.txt").write_text("cat\ndog\nowl\n")
    port, out = free_port(), here / "out"
    arguments = ("model.pth", "classes.txt", photo, "mobilenet_v3_small")
    said = run("own_checkpoint.sh", *arguments, PORT=str(port), OUT=str(out)).stdout
    answer = json.loads(said.splitlines()[-1])
    assert {one["label"] for one in answer["predictions"]} == {"cat", "dog", "owl"}
    with tarfile.open(f"{out}.tar.gz") as archive:
        assert "./model.json" in archive.getnames()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is gone"


def test_the_answer_of_another_server_is_not_taken_for_an_own_checkpoints(here: Path, photo: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", free_port()), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = str(other.server_port)
        said = run("own_checkpoint.sh", "model.pth", "classes.txt", photo, code=1, PORT=port, OUT=str(here / "out"))
        other.shutdown()
    assert f"another server answers at port {other.server_port}" in said.stderr


def test_batch_transform_as_a_dry_run(here: Path, photo: Path) -> None:
    (here / "photos").mkdir()
    photo.rename(here / "photos" / "dog.jpg")
    arguments = (VALUES["SERVE_URI"], "byoc-train-1", here / "photos", "--dry-run")
    bucket = VALUES["BUCKET"]
    said = run("batch_transform.sh", *arguments, AWS_REGION=REGION, BYOC_ROLE=ROLE, BYOC_BUCKET=bucket)
    assert operations(said.stdout)[-2:] == ["CreateModel", "CreateTransformJob"]


@pytest.mark.docker
def test_batch_transform_in_a_container_lists_the_least_sure_first(here: Path, tmp_path: Path) -> None:
    need(engine.available(), "a Docker engine")
    engine.image("serve")
    pack.pack(write_model(tmp_path / "model"), tmp_path / "model.tar.gz")
    (here / "photos").mkdir()
    for colour in ("red", "green", "blue", "white"):
        (here / "photos" / f"{colour}.jpg").write_bytes(picture(colour))
    said = run("batch_transform.sh", "--local", tmp_path / "model.tar.gz", here / "photos", OUT=str(here / "out"))
    *_, header, first, _, _, _ = said.stdout.splitlines()
    assert header.startswith("file,label,probability")
    assert first.startswith("white.jpg"), "as much red as green as blue"


def commands_for_aws() -> Iterator[str]:
    """Those of the pipeline and of the notebook for AWS."""
    pipeline = yaml.safe_load((EXAMPLES / "pipeline.yml").read_text())
    for job in pipeline["jobs"].values():
        yield from (step["run"] for step in job["steps"] if step.get("run", "").startswith("scripts/"))
    notebook: Any = nbformat.read(EXAMPLES / "aws.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        yield from (line for line in cell.source.splitlines() if line.startswith("scripts/"))


@pytest.mark.parametrize("command", list(commands_for_aws()))
def test_commands_for_aws_are_ones_that_the_service_takes(command: str, monkeypatch: Patch, capsys: Capture) -> None:
    for name, value in {"AWS_REGION": REGION, "BYOC_ROLE": ROLE, "BYOC_BUCKET": VALUES["BUCKET"]}.items():
        monkeypatch.setenv(name, value)
    values = {**VALUES, "DATA": f"s3://{VALUES['BUCKET']}/data", "NAME": "byoc-notebook-1", "PHOTO": "dog.jpg"}
    script, *words = shlex.split(re.sub(r"\$([A-Z_]+)", lambda found: values[found[1]], command))
    program = Path(script).name
    dry = ["--dry-run"] if program in FIRST and words else ["--help"]  # report.py, predict.py, cleanup.py that lists
    if dry == ["--help"]:
        with pytest.raises(SystemExit):
            module(script).main([*words, *dry])
        flags = [word for word in words if word.startswith("--")]
        assert set(flags) <= set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
        return
    assert module(script).main([*words, *dry, "--config", "/dev/null"]) == 0
    assert operations(capsys.readouterr().out)[0] in FIRST[program]


def test_the_pipeline_trains_before_it_asks_a_person() -> None:
    jobs = yaml.safe_load((EXAMPLES / "pipeline.yml").read_text())["jobs"]
    assert jobs["release"]["needs"] == "train"
    assert jobs["release"]["environment"] == "production"
    assert not any("aws-actions" in step.get("uses", "") for step in jobs["check"]["steps"])
