"""The whole way with the real images, as acceptance.py goes it: pushed, trained, deployed in each mode, removed.

A real registry stands in for ECR's, containers for the service's instances, moto for its API on a bad day.
"""

import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from boto3 import Session

from local_test.engine import DockerEngine
from scripts import acceptance
from scripts.console.command import run
from scripts.images import push
from scripts.story.steps import STEPS
from tests import trees
from tests.cloud import hosting, stand_in
from tests.cloud.conftest import REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.hosting import Hosting
from tests.cloud.test_acceptance import left, result, statuses
from tests.conftest import Patch, need
from tests.docker import engine

pytestmark = pytest.mark.docker
PROJECT = "byoc-story"


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("pushed", ["serve", pytest.param("all", marks=pytest.mark.full)])  # 5 GB take 10 minutes
def test_from_push_to_clean_up(pushed: str, aws: Session, flaky: FlakyAws, tmp_path: Path, monkeypatch: Patch) -> None:
    need(engine.available(), "a Docker engine")
    for name in ("BYOC_PROJECT", "BYOC_ROLE", "BYOC_BUCKET", "AWS_REGION"):
        monkeypatch.setenv(name, "")  # put back afterwards: the program sets them
    hosting.hurry(monkeypatch.setattr)
    for folder in ("registry", "docker"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    docker = DockerEngine(tmp_path)
    docker.images = {name: engine.image(name) for name in ("train", "serve")}
    data = trees.fill(tmp_path / "data")
    words = [f"{key}={value}" for key, value in {**trees.SMALL, "epochs": 8, "lr": 0.01}.items()]
    flags = ["--project", PROJECT, "--region", REGION, "--data", str(data), "--out", str(tmp_path / "out")]
    with stand_in.server(tmp_path / "registry") as server, contextlib.ExitStack() as stack:
        ecr = stand_in.StandIn(server, server.host)
        stand_in.install(monkeypatch, ecr)
        if pushed == "serve":
            flags += ["--train-image", _put_small(server)]

        push_here = push.main

        def push_there(arguments: Sequence[str]) -> int:
            """Return its output, with the image's name in ECR."""
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = push_here(arguments)
            print(ecr.uri(printed.getvalue()))
            return code

        monkeypatch.setattr(push, "main", push_there)
        service = Hosting(aws, flaky, tmp_path / "service", docker, "docker")
        stack.enter_context(service.stack)
        # Each of these is performed, and its answer lost.
        for operation in (
            "CreateRepository", "CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint",
            "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel", "DeleteRepository",
        ):  # fmt: skip
            flaky.break_after(operation)
        flaky.throttle("DescribeEndpoint", times=2)
        # Endpoints take their time to come and to go.
        flaky.before["CreateModel"] = lambda: flaky.slow(2)
        try:
            code = run("acceptance.py", acceptance.main, [*flags, "--hyperparameters", *words])
        finally:
            listing = ("images", "--filter", f"reference={server.host}/*", "--format", "{{.Repository}}:{{.Tag}}")
            for image in engine.docker(*listing).stdout.split():
                engine.docker("image", "rm", image, check=False)
    assert code == 0, (tmp_path / "out" / "result.txt").read_text()
    assert statuses(tmp_path) == {step.name: "passed" for step in STEPS}
    seen = {one["step"]: one["seen"] for one in result(tmp_path)["outcomes"]}
    assert seen["train on spot"]["test_accuracy"] > 0.5
    for step in ("real-time, update", "serverless", "asynchronous, from zero", "multi-model"):
        assert int(seen[step]["right"].split()[0]) >= 2, seen
    assert (seen["transform"]["images"], seen["transform"]["failed"]) == (12, 0)
    assert left(aws) == []
    assert [path for path in tmp_path.rglob("*") if path.lstat().st_uid != os.getuid()] == []


def _put_small(server: stand_in.Server) -> str:
    """The URI of an image in ECR that stands for the one that trains, which has 5 GB."""
    name = f"{PROJECT}-train"
    config = server.put_blob(name, json.dumps({"architecture": "amd64", "os": "linux", "config": {}}).encode())
    media = "application/vnd.docker.distribution.manifest.v2+json"
    entry = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2}
    server.put_manifest(name, "1", {"schemaVersion": 2, "mediaType": media, "config": entry, "layers": []})
    return f"{stand_in.ECR_HOST}/{name}:1"
