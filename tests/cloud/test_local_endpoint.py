"""deploy.py --local: a real container behind the SDK's local mode, and nothing of it afterwards."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_test import pack
from scripts import deploy, predict
from scripts.cloud.command import run
from tests.cloud import models
from tests.conftest import need
from tests.contract.serving import free_port, picture, write_model
from tests.docker import engine

ROOT = Path(__file__).parents[2]
SECONDS = 180  # the SDK alone takes ten to import on a busy machine


def call(*arguments: object) -> int:
    return run("deploy.py", deploy.main, [str(argument) for argument in arguments])


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """deploy.py as a process of its own; its temporary files lie in folder/tmp, what it says in folder/err.log."""
    (folder / "tmp").mkdir()
    # No region, no credentials, no network: the environment of conftest.py.
    command = [sys.executable, str(ROOT / "scripts" / "deploy.py"), "--local", *(str(word) for word in arguments)]
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
                process.send_signal(signal.SIGINT)
                process.wait(SECONDS)


def left(folder: Path, port: int) -> list[str]:
    """Files, and containers on that port."""
    found = [str(path) for path in (folder / "tmp").iterdir()]
    return found + engine.docker("ps", "--all", "--quiet", "--filter", f"publish={port}").stdout.split()


@pytest.mark.docker
@pytest.mark.parametrize("end", ["SIGTERM", "Ctrl-C"])
def test_served_asked_and_gone(tmp_path: Path, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    need(engine.available(), "a Docker engine")
    pack.pack(write_model(tmp_path / "model"), tmp_path / "model.tar.gz")
    (tmp_path / "blue.jpg").write_bytes(picture("blue"))
    port = free_port()
    arguments = ("--image", engine.image("serve"), "--model-data", tmp_path / "model.tar.gz", "--port", port, "--json")
    with started(tmp_path, *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "err.log").read_text()
        served = json.loads(line)
        assert served == {"url": f"http://localhost:{port}", "image": engine.image("serve")}
        (container,) = engine.docker("ps", "--quiet", "--filter", f"publish={port}").stdout.split()
        config = json.loads(engine.docker("inspect", container).stdout)[0]["Config"]
        assert config["User"] == f"{os.getuid()}:{os.getgid()}"
        assert not [variable for variable in config["Env"] if "SECRET" in variable]

        assert run("predict.py", predict.main, ["--local", served["url"], str(tmp_path / "blue.jpg"), "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert result["predictions"][0]["label"] == "blue"

        if end == "SIGTERM":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to Compose too
        assert process.wait(SECONDS) == 0
    said = (tmp_path / "err.log").read_text()
    assert f"scripts/predict.py --local http://localhost:{port} PICTURE" in said
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
def test_refused_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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
        assert call("--local", *arguments) in (1, 2)
        assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_without_docker(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call("--local", "--model-data", tmp_path / "model.tar.gz") == 1
    assert "install Docker" in capsys.readouterr().err.splitlines()[-1]
