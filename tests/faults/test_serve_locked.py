"""The serving image where little is allowed: no network, no capabilities, no writing, a memory limit."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.models import CLASSES, picture, write_model
from tests.contract.serving import until
from tests.docker import engine

pytestmark = pytest.mark.docker
LOCKED = (
    "--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=64m", "--network", "none", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--memory", "1g", "--memory-swap", "1g", "--pids-limit", "200",
)  # fmt: skip
NOBODY = "65534"
# There is no network into the container, so the caller runs in it: a path, a type and a body in base64.
ASK = """
import base64, http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
path, kind, body = sys.argv[1:]
connection.request("POST" if body else "GET", path, base64.b64decode(body), {"Content-Type": kind} if kind else {})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
# Of every process in the container but the one that looks.
LOOK = """
import json, os, pathlib
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        status = dict(line.split(":\\t", 1) for line in (folder / "status").read_text().splitlines() if ":\\t" in line)
        command = (folder / "cmdline").read_text().split("\\0")[:3]
    except OSError:
        continue
    if int(folder.name) != os.getpid() and status["State"][0] != "Z":
        keys = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")
        found.append({"command": command, **{key: status[key].split() for key in keys}})
print(json.dumps(found))
"""


def ask(identifier: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str]:
    command = ("python", "-c", ASK, path, kind, base64.b64encode(body).decode())
    done = engine.docker("exec", identifier, *command, check=False)
    status, _, text = done.stdout.partition(" ")
    return (int(status), text) if done.returncode == 0 else (0, done.stderr)


@contextmanager
def served(folder: Path, *options: str, mode: int = 0o755) -> Iterator[str]:
    """A container, ready, whose model lies in a folder of that mode, which belongs to root."""
    model = write_model(folder / "model")
    model.chmod(mode)
    with started("--volume", f"{model}:/opt/ml/model:ro", *options) as identifier:
        yield identifier


@contextmanager
def started(*options: str) -> Iterator[str]:
    """The container with these options, ready."""
    with engine.container(engine.image("serve"), "serve", options=options) as identifier:

        def ready() -> bool:
            state = json.loads(engine.docker("inspect", "--format", "{{json .State}}", identifier).stdout)
            assert state["Running"], engine.logs(identifier)
            return ask(identifier, "/ping")[0] == 200

        until(ready, "ready", 90)
        yield identifier


def test_a_picture_that_memory_does_not_suffice_for_is_refused(tmp_path: Path) -> None:
    """49 megapixels of WebP take 750 MB to decode: without the limit the kernel would end the worker."""
    body = io.BytesIO()
    Image.new("RGB", (7000, 7000), "blue").save(body, "WEBP", lossless=True)
    with served(tmp_path, "--memory", "1g", "--memory-swap", "1g") as identifier:
        before = [process["command"] for process in processes(identifier)]
        for _ in range(4):
            status, answer = ask(identifier, "/invocations", body.getvalue(), "image/webp")
            assert (status, json.loads(answer)["type"]) == (400, "PixelLimit"), answer
            assert "MB to decode, and this server has" in answer
        status, _ = ask(identifier, "/invocations", picture("blue"), "image/jpeg")
        assert status == 200
        assert [process["command"] for process in processes(identifier)] == before
        assert "died" not in engine.logs(identifier)


def processes(identifier: str) -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] = json.loads(
        engine.docker("exec", "--user", NOBODY, identifier, "python", "-c", LOOK).stdout
    )
    assert len(found) >= 4  # the supervisor, Java, and Python: the one that forks, and a worker
    return found


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["for all", "for root"])
def test_a_container_that_starts_as_root_does_not_stay_root(tmp_path: Path, mode: int) -> None:
    """Not for a model either that only root may read, as some tools leave it that unpack it."""
    with served(tmp_path, mode=mode) as identifier:
        for process in processes(identifier):
            assert set(process["Uid"]) == set(process["Gid"]) == {NOBODY}, process
            assert process["Groups"] == []
            assert {int(process[key][0], 16) for key in ("CapEff", "CapPrm")} == {0}
            assert process["NoNewPrivs"] == ["1"]
        status, body = ask(identifier, "/invocations", picture("blue"), "image/jpeg")
        assert (status, json.loads(body)["predictions"][0]["label"]) == (200, CLASSES[2])
        engine.docker("stop", "--time", "30", identifier)
        assert engine.wait(identifier, 1) == 0, engine.logs(identifier)


def load(identifier: str, name: str) -> tuple[int, str]:
    """Ask for the model in the folder of that name."""
    body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}"}).encode()
    return ask(identifier, "/models", body, "application/json")


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_several_models_are_served_by_nobody_too(tmp_path: Path, user: str) -> None:
    """A model that only root may read is refused with what helps, and taken with that."""
    for name in ("open", "closed", "inside", "file"):
        write_model(tmp_path / "models" / name)
    (tmp_path / "models" / "closed").chmod(0o700)
    (tmp_path / "models" / "file" / "model.bin").chmod(0o600)
    (tmp_path / "models" / "inside" / "more").mkdir(mode=0o700)
    options = ("--env", "SAGEMAKER_MULTI_MODEL=true", *(("--env", "BYOC_USER=root") if user == "root" else ()))
    with started("--volume", f"{tmp_path / 'models'}:/opt/ml/models:ro", *options) as identifier:
        assert load(identifier, "open")[0] == 200
        for process in processes(identifier):
            assert set(process["Uid"]) == {NOBODY if user == "nobody" else "0"}, process
            assert process["NoNewPrivs"] == ["1"]
        for name in ("closed", "inside", "file"):
            status, answer = load(identifier, name)
            if user == "root":
                assert status == 200, answer
                continue
            message = json.loads(answer)["message"]
            assert (status, "\n" in message) == (403, False)
            assert f"/opt/ml/models/{name}" in message
            assert "the user nobody" in message
            assert "BYOC_USER=root" in message
        assert load(identifier, "missing")[0] == 404
        status, body = ask(identifier, "/models/open/invoke", picture("blue"), "image/jpeg")
        assert (status, json.loads(body)["predictions"][0]["label"]) == (200, CLASSES[2])


@pytest.mark.parametrize("user", [(), ("--user", "1000")], ids=["root", "user-1000"])
def test_everything_locked_down(tmp_path: Path, user: tuple[str, ...]) -> None:
    """Without capabilities root cannot become another user; what is left of it then is no more than any user has."""
    with served(tmp_path, *LOCKED, *user) as identifier:
        status, body = ask(identifier, "/invocations", picture("lime"), "image/jpeg")
        assert (status, json.loads(body)["predictions"][0]["label"]) == (200, CLASSES[1])
        assert ask(identifier, "/invocations", b"no picture", "image/jpeg")[0] == 400
        for process in processes(identifier):
            assert {int(process[key][0], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {0}
            assert process["NoNewPrivs"] == ["1"]
            assert set(process["Uid"]) == {user[1] if user else "0"}
        assert ("stays root" in engine.logs(identifier)) == (not user)
        engine.docker("stop", "--time", "30", identifier)
        assert engine.wait(identifier, 1) == 0, engine.logs(identifier)
