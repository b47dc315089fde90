"""Nothing in an artifact is code: no file in it is imported or run, whatever its name, and the model serves."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from container_serve import artifact
from tests.conftest import both_engines
from tests.contract.models import picture, write_model
from tests.contract.serving import Answer, Server, serving, until

MARK = "byoc-ran-"
# Runs with nothing but what the interpreter has built in, as early as sitecustomize.
PROGRAM = f"""
import posix
posix.close(posix.open(posix.environ.get(b"TMPDIR", b"/tmp") + b"/{MARK}" + %r, posix.O_CREAT | posix.O_WRONLY))
print("{MARK}", %r)

def handle(data, context):
    return [b"taken over"]
"""
SCRIPT = f'#!/bin/sh\ntouch "${{TMPDIR:-/tmp}}/{MARK}%s"\n'
MODULES = (
    # what Python imports before any program, and as it starts
    "sitecustomize.py", "usercustomize.py", "site.py", "os.py", "encodings/__init__.py", "codecs.py", "abc.py",
    # what the worker's program and its libraries import
    "logging.py", "logging/__init__.py", "json.py", "random.py", "socket.py", "runpy.py",
    "multiprocessing/__init__.py", "signal.py",
    "numpy/__init__.py", "openvino/__init__.py", "PIL/__init__.py", "psutil.py", "sagemaker_inference/__init__.py",
    "container_serve/__init__.py", "container_serve/worker/main.py", "container_serve/worker/service.py",
    "container_serve.py",
    "mms/__init__.py", "mms/model_service_worker.py", "mms/service.py",
    # what the model server, its handlers and its archives name
    "handler.py", "model_service_worker.py", "model_handler.py", "inference.py", "service.py", "evil.py",
    "__init__.py", "__main__.py",
    "model.py", "code.py", "setup.py", "conftest.py",
)  # fmt: skip
SCRIPTS = ("python", "python2", "python3", "bin/python", "java", "sh", "train", "serve")
MANIFEST = {
    "specificationVersion": "1.0", "modelServerVersion": "1.0", "implementationVersion": "1.0", "runtime": "python2",
    "model": {"modelName": "evil", "handler": "evil:handle", "modelVersion": "1.0", "extensions": {"url": "evil.mar"}},
    "engine": {"engineName": "evil"}, "pythonpath": ".",
}  # fmt: skip
LEGACY = {
    "model": {"handler": "evil.py", "modelName": "evil", "service": "evil.py"}, "runtime": "python",
    "specificationVersion": "0.1",
}  # fmt: skip
# Those that would keep a worker from starting, or take its place, are tried one by one as well.
ALONE = (
    "sitecustomize.py", "logging.py", "json.py", "os.py", "encodings/__init__.py", "numpy/__init__.py",
    "container_serve/__init__.py",
    "mms/__init__.py", "evil.pth", "MAR-INF/MANIFEST.json", "MANIFEST.json", "model/MANIFEST.json", "python2",
    "logging.so",
)  # fmt: skip


def program(name: str) -> str:
    mark = name.replace("/", "-")
    return PROGRAM % (mark.encode(), mark)


def files() -> dict[str, bytes]:
    """name -> content of everything that would run if anything did."""
    found = {name: program(name).encode() for name in MODULES}
    found |= {name: (SCRIPT % name.replace("/", "-")).encode() for name in SCRIPTS}
    line = f"import posix; posix.open((posix.environ.get(b'TMPDIR', b'/tmp') + b'/{MARK}%s'), 65)\n"
    for name in ("evil.pth", "distutils-precedence.pth", "container_serve.egg-link", "easy-install.pth"):
        found[name] = (line % name).encode()
    # Compiled and native modules: what is in them is never looked at, or importing them would fail.
    tag = sys.implementation.cache_tag
    for name in ("logging.so", f"json.{tag}-x86_64-linux-gnu.so", "_socket.abi3.so", "logging.pyc", "random.pyc"):
        found[name] = b"\x7fELF no module"
    for name in ("MAR-INF/MANIFEST.json",):
        found[name] = json.dumps(MANIFEST).encode()
    for name in ("MANIFEST.json", "model/MANIFEST.json", "manifest.json"):
        found[name] = json.dumps(LEGACY).encode()
    settings = b"default_service_handler=evil:handle\nload_models=ALL\nplugins_path=/opt/ml/model\n"
    for name in (
        "config.properties", "mms.properties", "pyvenv.cfg", ".env", "log4j2.xml", "log4j2.properties", ".hotspotrc",
        "JDK_JAVA_OPTIONS",
    ):  # fmt: skip
        found[name] = settings
    found["plugins.xml"] = b'<ie><plugins><plugin name="CPU" location="logging.so"/></plugins></ie>'
    found["openvino.conf"] = b"/opt/ml/model/logging.so"
    return found


def with_files(folder: Path, names: list[str]) -> Path:
    """A good model in whose model.json these files are listed, too."""
    model, contents = write_model(folder), files()
    described = artifact.read(model)
    for name in names:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])
        path.chmod(0o755)
    artifact.write(
        model, classes=described.classes, architecture="tiny", preprocessing=described.preprocessing, precision="fp32"
    )
    assert set(names) <= set(artifact.read(model).document["files"])
    return model


def all_of_them() -> list[str]:
    """As many as can lie in one folder: logging.py before logging/__init__.py."""
    names: list[str] = []
    for name in files():
        top = Path(name).parts[0]
        if not any(other == top or Path(other).parts[0] == name for other in names):
            names.append(name)
    return names


def served(answer: Answer) -> None:
    assert (answer.status, answer.json()["predictions"][0]["label"]) == (200, "red"), answer.body


def nothing_ran(server: Server, model: Path) -> None:
    assert [path.name for path in server.tmp.rglob(f"{MARK}*")] == []
    assert MARK not in server.log()
    assert server.err.read_text() == ""
    for worker in server.python():
        folder = Path(f"/proc/{worker.pid}/cwd").readlink()
        assert folder.name.startswith("byoc-serve-"), folder
        path = worker.environ().get("PYTHONPATH", "")
        assert path == "" or not any(Path(part).resolve().is_relative_to(model) for part in path.split(":") if part)


@both_engines
def test_a_model_with_all_of_them_is_served_and_none_runs(tmp_path: Path, kind: str) -> None:
    model = with_files(tmp_path / "model", all_of_them())
    assert len(all_of_them()) > 50
    # The folder that a server is started in is on Python's path, if nothing is done about it.
    prefix = ("--workdir", "/opt/ml/model") if kind == "docker" else ()
    with serving(model, tmp_path / "run", kind=kind, prefix=prefix) as server:
        served(server.invoke(picture("red")))
        for worker in server.children():
            worker.kill()  # those that come in their place start in the same way
        until(lambda: server.ping() == 503, "/ping red", 10)
        server.wait_ready()
        served(server.invoke(picture("red")))
        nothing_ran(server, model)


@pytest.mark.parametrize("name", ALONE)
def test_a_model_with_one_of_them_is_served_and_it_does_not_run(tmp_path: Path, name: str) -> None:
    model = with_files(tmp_path / "model", [name])
    with serving(model, tmp_path / "run", {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as server:
        served(server.invoke(picture("red")))
        nothing_ran(server, model)


@both_engines
@pytest.mark.timeout(600)
def test_several_models_with_them_are_served_and_none_runs(tmp_path: Path, kind: str) -> None:
    models = tmp_path / "models"
    kinds = {"all": all_of_them(), **{f"m{index}": [name] for index, name in enumerate(ALONE)}}
    for name, chosen in kinds.items():
        with_files(models / name, chosen)
    with zipfile.ZipFile(models / "evil.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({**MANIFEST, "runtime": "python"}))
        archive.writestr("evil.py", program("archive"))
    where = models if kind == "process" else Path("/opt/ml/model")
    env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(models, tmp_path / "run", env, kind=kind) as server:

        def load(name: str, url: Path) -> Answer:
            return server.request("POST", "/models", json.dumps({"model_name": name, "url": str(url)}).encode())

        for name in kinds:
            assert load(name, where / name).status == 200
            served(server.request("POST", f"/models/{name}/invoke", picture("red"), {"Content-Type": "image/jpeg"}))
            nothing_ran(server, models)
            assert server.request("DELETE", f"/models/{name}").status == 200
        refused = load("archive", where / "evil.mar")
        assert (refused.status, "is not a folder" in refused.json()["message"]) == (400, True)
        nothing_ran(server, models)
