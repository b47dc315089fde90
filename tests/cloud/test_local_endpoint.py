"""deploy.py --local: a real container behind the SDK's local mode, and nothing of it afterwards."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_test import pack
from scripts import deploy, predict
from tests.cloud import models
from tests.cloud.conftest import Call
from tests.conftest import Patch, need
from tests.contract.models import picture, write_model
from tests.contract.serving import free_port
from tests.docker import engine

ROOT = Path(__file__).parents[2]
SECONDS = 180  # the SDK alone takes ten to import on a busy machine


@contextmanager
def started(folder: Path, *arguments: object, before: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    """deploy.py as a process of its own; its temporary files lie in folder/tmp, what it says in folder/err.log.

    `before`: words in front of its command.
    """
    (folder / "tmp").mkdir()
    # No region, no credentials, no network: the environment of conftest.py.
    script = ROOT / "scripts" / "deploy.py"
    command = [*before, sys.executable, str(script), "--local", *map(str, arguments)]
    with (folder / "err.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(SECONDS)


def left(folder: Path, port: int) -> list[str]:
    """Files, and containers on that port."""
    found = [str(path) for path in (folder / "tmp").iterdir()]
    return found + engine.docker("ps", "--all", "--quiet", "--filter", f"publish={port}").stdout.split()


@pytest.mark.docker
@pytest.mark.parametrize("end", ["SIGTERM", "Ctrl-C", "SIGKILL"])
def test_served_asked_and_gone(tmp_path: Path, end: str, call: Call) -> None:
    need(engine.available(), "a Docker engine")
    pack.pack(write_model(tmp_path / "model"), tmp_path / "model.tar.gz")
    (tmp_path / "blue.jpg").write_bytes(picture("blue"))
    port = free_port()
    archive = tmp_path / "model.tar.gz"
    arguments = ("--image", engine.image("serve"), "--model-data", archive, "--port", port, "--json", "--page")
    # As with `&` in a script.
    before = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh") if end == "SIGTERM" else ()
    with started(tmp_path, *arguments, before=before) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "err.log").read_text()
        served = json.loads(line)
        assert served == {"url": f"http://localhost:{port}", "image": engine.image("serve")}
        (container,) = engine.docker("ps", "--quiet", "--filter", f"publish={port}").stdout.split()
        config = json.loads(engine.docker("inspect", container).stdout)[0]["Config"]
        assert config["User"] == f"{os.getuid()}:{os.getgid()}"
        assert not [variable for variable in config["Env"] if "SECRET" in variable]

        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(served["url"]) as page:
            assert page.read().startswith(b"<!doctype html>")
        (result,) = call(predict, "--local", served["url"], tmp_path / "blue.jpg", "--json").json["results"]
        assert result["predictions"][0]["label"] == "blue"

        # A second one may not have the port, nor take the first one's things for stale.
        model = ("--model-data", tmp_path / "model.tar.gz")
        other = call(deploy, "--local", "--image", "byoc-serve:none", *model)
        taken = call(deploy, "--local", "--image", engine.image("serve"), *model, "--port", port)
        assert (other.code, taken.code, f"--port {port} is taken" in taken.last) == (1, 1, True)
        assert "removed" not in other.err + taken.err
        assert process.poll() is None

        if end == "SIGTERM":
            process.terminate()
        elif end == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to Compose too
        else:
            process.kill()
        assert process.wait(SECONDS) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    if end == "SIGKILL":
        (work,) = (tmp_path / "tmp").iterdir()
        said = call(deploy, "--local", "--image", "byoc-serve:none", *model).err
        (line,) = [line for line in said.splitlines() if line.startswith("removed what a killed call had left")]
        for what in ("container ", "network byoc-"):
            assert what in line, said
        assert not work.exists()
    said = (tmp_path / "err.log").read_text()
    assert "loading the SageMaker SDK" in said
    assert f"scripts/predict.py --local http://localhost:{port} IMAGE, or http://localhost:{port}/ in a browser" in said
    if end == "SIGTERM":  # on Ctrl-C Compose hands on no more of the log
        assert "server: stopped" in said
    assert "Traceback" not in said
    assert left(tmp_path, port) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blue.jpg", "err.log", "model", "model.tar.gz", "tmp"]
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {os.getuid()}


@pytest.mark.docker
def test_a_container_that_does_not_start_is_gone_too(tmp_path: Path) -> None:
    need(engine.available(), "a Docker engine")
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(models.archive(tmp_path / "made"))  # right but for its graph
    port = free_port()
    with started(tmp_path, "--image", engine.image("serve"), "--model-data", archive, "--port", port) as process:
        assert process.wait(SECONDS) == 1
    said = (tmp_path / "err.log").read_text().splitlines()
    assert said[-1].startswith("deploy.py: the container did not start")
    assert any("model.xml" in line for line in said)
    assert not [line for line in said if "Traceback" in line]
    assert left(tmp_path, port) == []


@pytest.mark.docker
def test_refused_before_anything_is_started(tmp_path: Path, call: Call, monkeypatch: Patch) -> None:
    need(engine.available(), "a Docker engine")
    image = engine.image("serve")
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(models.archive(tmp_path / "made", "own code"))
    for arguments, complaint in (
        (("--image", image, "--model-data", archive), "serve-torch"),
        (("--image", image, "--model-data", tmp_path / "gone.tar.gz"), "is not there"),
        (("--image", image, "--model-data", tmp_path), "is a folder"),
        (("--image", "byoc-serve:none", "--model-data", archive), "byoc-serve:none is not on this machine"),
        (("--image", image, "--model-data", archive, "--environment", "BYOC_THREADS=x"), "BYOC_THREADS"),
    ):
        ended = call(deploy, "--local", *arguments)
        assert (ended.code in (1, 2), complaint in ended.last) == (True, True)


@pytest.mark.parametrize("arguments", [("gone.tar.gz",), (".",)])
def test_what_needs_no_docker_is_said_first(
    arguments: tuple[str, ...], tmp_path: Path, call: Call, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    ended = call(deploy, "--local", "--model-data", *arguments)
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert f"--model-data {arguments[0]} is " in line
