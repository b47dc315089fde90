"""The images as the platform starts them."""

import http.client
import json
import time
from pathlib import Path

import pytest

from tests.contract.models import CLASSES, picture, write_model
from tests.contract.serving import free_port
from tests.docker import engine

pytestmark = pytest.mark.docker


def get(port: int, path: str, body: bytes | None = None, kind: str = "image/jpeg") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST" if body else "GET", path, body, {"Content-Type": kind} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_ready(identifier: str, port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if get(port, "/ping")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise AssertionError(f"no 200 from /ping within {seconds} s:\n{engine.logs(identifier)}")


@pytest.mark.parametrize("restrictions", [(), ("--read-only", "--tmpfs", "/tmp")], ids=["plain", "read-only"])
def test_serve_answers_and_stops(tmp_path: Path, restrictions: tuple[str, ...]) -> None:
    port = free_port()
    options = (
        "--publish",
        f"127.0.0.1:{port}:8080",
        "--volume",
        f"{write_model(tmp_path)}:/opt/ml/model:ro",
        *restrictions,
    )
    with engine.container(engine.image("serve"), "serve", options=options) as identifier:
        wait_until_ready(identifier, port)
        assert "container_serve" in engine.docker("exec", identifier, "cat", "/proc/1/cmdline").stdout
        status, body = get(port, "/invocations", picture("green"))
        assert status == 200, body
        assert json.loads(body)["predictions"][0]["label"] == CLASSES[1]
        engine.docker("stop", "--time", "30", identifier)
        assert engine.wait(identifier, 1) == 0, engine.logs(identifier)


def test_the_labels_promises_hold(tmp_path: Path) -> None:
    """accept-bind-to-port and multi-models, as the platform uses them."""
    port = free_port()
    models = tmp_path / "models"  # pytest's own folder is for root alone, and the server is nobody
    write_model(models / "m1" / "model")
    volume = ("--publish", f"127.0.0.1:{port}:9090", "--volume", f"{models}:/opt/ml/models/x:ro")
    platform = ("--env", "SAGEMAKER_MULTI_MODEL=true", "--env", "SAGEMAKER_BIND_TO_PORT=9090")
    with engine.container(engine.image("serve"), "serve", options=(*volume, *platform)) as identifier:
        wait_until_ready(identifier, port)
        model = json.dumps({"model_name": "m1", "url": "/opt/ml/models/x/m1/model"}).encode()
        assert get(port, "/models", model, "application/json")[0] == 200, engine.logs(identifier)
        assert get(port, "/models", model, "application/json")[0] == 409
        status, body = get(port, "/models/m1/invoke", picture("blue"))
        assert status == 200, body
        assert json.loads(body)["predictions"][0]["label"] == CLASSES[2]


@pytest.mark.parametrize("name", ["model.bin", "model.json"])
def test_a_broken_artifact_ends_the_container(tmp_path: Path, name: str) -> None:
    damaged = write_model(tmp_path) / name
    content = bytearray(damaged.read_bytes())
    content[0] ^= 1
    damaged.write_bytes(content)
    options = ("--volume", f"{tmp_path}:/opt/ml/model:ro")
    with engine.container(engine.image("serve"), "serve", options=options) as identifier:
        assert engine.wait(identifier, 15) != 0
        lines = engine.logs(identifier).splitlines()
        assert [line for line in lines if name in line] == lines[-1:]
        assert not any("Traceback" in line for line in lines)


def test_serve_without_a_model_says_so() -> None:
    done = engine.run(engine.image("serve"), "serve", check=False)
    assert done.returncode != 0
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert "/opt/ml/model" in done.stdout + done.stderr


def test_train_without_a_tree_says_so() -> None:
    done = engine.run(engine.image("train"), "train", check=False)
    assert done.returncode != 0
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert "/opt/ml" in done.stdout + done.stderr


def test_train_is_our_program_and_there_is_no_other() -> None:
    found = engine.run(engine.image("train"), "sh", "-c", "which -a train && cat $(which train)").stdout
    assert found.splitlines()[:2] == ["/usr/local/bin/train", "#!/bin/sh"]
    assert "container_train.entrypoint" in found


@pytest.mark.parametrize(("name", "module"), [("train", "container_train"), ("serve", "container_serve")])
def test_other_commands_work(name: str, module: str) -> None:
    assert "usage" in engine.run(engine.image(name), "python", "-m", module, "--help").stdout.lower()
