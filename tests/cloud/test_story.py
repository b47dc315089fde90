"""The whole way with the real images: pushed, trained locally, deployed here and in the cloud, asked, cleaned up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

from scripts import cleanup, deploy
from scripts.console.command import run
from scripts.endpoints import lookup
from scripts.images import push
from scripts.resources.stale import JOB
from tests import trees
from tests.cloud import stand_in
from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.conftest import need
from tests.contract.serving import free_port
from tests.docker import engine

pytestmark = pytest.mark.docker
SCRIPTS = engine.ROOT / "scripts"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"


def command(program: str, *arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPTS / program), *map(str, arguments)]


def call(program: str, *arguments: object) -> str:
    done = subprocess.run(command(program, *arguments), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def left() -> tuple[str, str]:
    """Containers and networks of local mode."""
    containers = engine.docker("ps", "-aq", "--filter", f"label={JOB}").stdout
    return containers, engine.docker("network", "ls", "--quiet", "--filter", f"label={JOB}").stdout


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("pushed", ["serve", pytest.param("all", marks=pytest.mark.full)])  # 5 GB take 10 minutes
def test_from_push_to_clean_up(
    pushed: str,
    aws: boto3.Session,
    flaky: FlakyAws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need(engine.available(), "a Docker engine")
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)
    before = left()
    built = {name: engine.image(name) for name in ("train", "serve")}
    (tmp_path / "registry").mkdir()
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    images: list[str] = []
    with stand_in.server(tmp_path / "registry") as server:
        ecr = stand_in.StandIn(server, server.host)
        stand_in.install(monkeypatch, ecr)
        try:
            flaky.break_after("CreateRepository")
            assert run("push.sh", push.main, [pushed]) == 0
            images = capsys.readouterr().out.split()
            train_image, serve_image = [built["train"], *images][-2:]
            repositories = aws.client("ecr").describe_repositories()["repositories"]
            assert sorted(one["repositoryName"] for one in repositories) == [
                f"byoc-{name}" for name in (("serve", "train") if pushed == "all" else ("serve",))
            ]
            # The scripts of local mode need no account: they run as a user runs them, without one.
            for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
                monkeypatch.setenv(f"KEPT_{variable}", os.environ[variable])
                monkeypatch.delenv(variable)
            data = trees.fill(tmp_path / "data")
            options = [word for key, value in trees.SMALL.items() for word in (f"--{key}", value)]
            trained = json.loads(
                call("train.py", "--local", "--json", "--image", train_image, "--data", data, "--epochs", 8,
                     "--lr", 0.01, "--name", "byoc-story", "--output", tmp_path / "jobs", *options)
            )  # fmt: skip
            assert trained["status"] == "Completed"
            assert trained["metrics"]["test_accuracy"] > 0.5
            assert Path(trained["model"]) == tmp_path / "jobs/byoc-story/output/model.tar.gz"
            assert Path(trained["model"]).stat().st_uid == os.getuid()

            port = free_port()
            with (tmp_path / "deploy.log").open("w") as log:
                deployed = subprocess.Popen(
                    command("deploy.py", "--local", "--image", serve_image, "--model-data", trained["model"],
                            "--port", port),
                    stdout=log, stderr=log,
                )  # fmt: skip
            try:
                answers = asked(port, data / "test", deployed, tmp_path / "deploy.log")
            finally:
                deployed.send_signal(signal.SIGTERM)
                deployed.wait(60)
            assert set(answers) == set(trees.LABELS)
            right = sum(label == predicted for label, found in answers.items() for predicted in found)
            assert right > sum(map(len, answers.values())) / 2

            for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
                monkeypatch.setenv(variable, os.environ[f"KEPT_{variable}"])
            # In the cloud the same model becomes an endpoint, which takes its time to come and to go.
            key = "byoc/byoc-story/output/model.tar.gz"
            aws.client("s3").upload_file(trained["model"], BUCKET, key)
            flaky.slow(2)
            # Each of these is performed, and its answer lost.
            for operation in (
                "CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint",
                "DeleteEndpointConfig", "DeleteModel", "DeleteRepository",
            ):  # fmt: skip
                flaky.break_after(operation)
            flaky.throttle("DescribeEndpoint", times=2)
            request = ["--image", ecr.uri(images[-1]), "--model-data", f"s3://{BUCKET}/{key}", "--name", "byoc-story"]
            assert run("deploy.py", deploy.main, request) == 0
            said = capsys.readouterr().err
            assert "the image can serve it" in said
            assert "byoc-story: Creating" in said
            assert run("deploy.py", deploy.main, [*request, "--update", "--prune"]) == 0
            assert "byoc-story: Updating" in capsys.readouterr().err
            served = aws.client("sagemaker").describe_endpoint(EndpointName="byoc-story")
            assert (served["EndpointStatus"], served["EndpointConfigName"] != "byoc-story") == ("InService", True)
            configurations = aws.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
            assert [one["EndpointConfigName"] for one in configurations] == [served["EndpointConfigName"]]
            assert run("cleanup.py", cleanup.main, ["--all", "--repositories", "--yes"]) == 0
            assert "byoc-story: Deleting" in capsys.readouterr().err
            assert aws.client("ecr").describe_repositories()["repositories"] == []
            assert aws.client("sagemaker").list_models()["Models"] == []
        finally:
            listing = ("images", "--filter", f"reference={server.host}/*", "--format", "{{.Repository}}:{{.Tag}}")
            for image in {*images, *engine.docker(*listing).stdout.split()}:
                engine.docker("image", "rm", image, check=False)
    assert left() == before
    assert [path for path in tmp_path.rglob("*") if path.lstat().st_uid != os.getuid()] == []


def asked(port: int, pictures: Path, server: subprocess.Popen[bytes], log: Path) -> dict[str, list[str]]:
    """The first label of each test picture, by its true one, once the server is there."""
    deadline = time.monotonic() + 180
    while "ready after" not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    document = json.loads(call("predict.py", "--local", f"http://localhost:{port}", "--json", pictures))
    answers: dict[str, list[str]] = {}
    for row in document["results"]:
        true = Path(row["image"]).parent.name.partition(".")[2]
        answers.setdefault(true, []).append(row["predictions"][0]["label"])
    return answers
