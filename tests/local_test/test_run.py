"""The one command, as a user calls it: the ways in which it ends early (test_chain.py has those that end well)."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from container_train.compute import device
from local_test import __main__ as program
from local_test import engine, outdir, run, server, stage, weights
from local_test.engine import DockerEngine
from local_test.errors import LocalError, guarded
from tests import trees
from tests.conftest import Capture, Patch, need
from tests.local_test.runs import RUN, SECONDS, call, mentioning, until


def test_a_wrong_hyperparameter_is_refused_before_training(tmp_path: Path) -> None:
    done = call("--engine", "process", "--out", tmp_path / "out", "--learning-rate", "1")
    assert done.returncode == 2
    assert "learning-rate" in done.stdout
    assert "training" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def main(*arguments: str) -> int:
    return guarded("run.sh", lambda: program.main("run.sh", list(arguments)))


def refused(monkeypatch: Patch, capsys: Capture, *arguments: object) -> str:
    """Return the message of run.sh about a mistake, which it finds before it looks at hyperparameters and weights."""
    monkeypatch.setattr(weights, "url_of", lambda *_: pytest.fail("this asks the network"))
    assert main(*map(str, arguments), "--engine", "process") != 0
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--device cuda", "device has value 'cuda': this machine has no NVIDIA GPU; use auto or cpu"),
        ("--resize-size 10", "resize-size has value 10: expected at least the image-size, 224"),
        ("--arch timm/convnext_tini", "arch has value 'timm/convnext_tini': .*did you mean timm/convnext_tiny"),
        ("--track mlflow", "track has value 'mlflow': the package mlflow is not installed: `pip install mlflow-skinny"),
    ],
)
def test_a_value_that_cannot_work_here_is_refused_before_anything_is_staged(
    words: str, expected: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(device, "DEVICE_FILES", ())  # a machine without a GPU
    monkeypatch.setattr(weights, "unreachable", lambda _: "")
    assert main("--engine", "process", "--out", str(tmp_path / "out"), *words.split()) == 2
    said, error = capsys.readouterr()
    assert re.match(f"run.sh: hyperparameter {expected}", error.strip()), error
    assert "staging" not in said


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The program sets handlers of its own."""
    kept = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in kept.items():
        signal.signal(each, handler)


def test_a_taken_port_is_found_before_training(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    with socket.socket() as holder:
        for port in range(server.free_port(), 32000):  # another test may have taken it since
            with suppress(OSError):
                holder.bind(("127.0.0.1", port))
                break
        holder.listen()
        said = refused(monkeypatch, capsys, "--out", tmp_path / "out", "--port", port)
    assert said.startswith(f"run.sh: --port {port} is taken")
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "mine", "--epochs", "x"), "has no class folders"),
        (("--measure", "none"), "--measure none leaves no model"),
        (("--weights", "none"), "out.old holds something else"),
    ],
)
def test_a_mistake_is_found_before_hyperparameters_are_looked_at(
    tmp_path: Path, monkeypatch: Patch, capsys: Capture, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "precious").touch()
    found = refused(monkeypatch, capsys, "--out", tmp_path / "out", *arguments)
    assert (said in found, "\n" in found) == (True, False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "out.old", "precious"]


def test_a_typing_error_keeps_what_a_failed_run_left(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    with outdir.claimed(tmp_path / "out") as out:
        (out.begin() / "model").mkdir()
        (out.out / "model" / "model.tar.gz").touch()
        run.leave(out)
    said = capsys.readouterr().err
    archive = tmp_path / "out.failed" / "model" / "model.tar.gz"
    assert f"./local_test/serve_local.sh --model {archive}" in said
    assert main("--engine", "process", "--out", str(tmp_path / "out"), "--epochs", "0") == 2
    said, error = capsys.readouterr()
    assert "the sample is trained with --epochs 60 --lr 0.003" in said
    assert error.strip() == "run.sh: hyperparameter epochs has value '0': expected an integer from 1 to 10000"
    assert archive.exists()
    assert not (tmp_path / "out").exists()


def test_a_training_that_fails_is_told_without_its_traceback(
    tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    (fails := tmp_path / "program").write_text(
        "#!/bin/sh\nprintf 'No space left: model.pth\\n\\nTraceback' >$SAGEMAKER_BASE_DIR/output/failure\nexit 7\n"
    )
    fails.chmod(0o755)
    monkeypatch.setattr("local_test.engine.sys", SimpleNamespace(executable=str(fails)))
    data = trees.fill(tmp_path / "data", {"train": 1, "valid": 1, "test": 1})
    assert main("--engine", "process", "--data", str(data), "--out", str(tmp_path / "out"), "--weights", "none") == 7
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "run.sh: training failed with exit code 7: No space left: model.pth"
    assert not (tmp_path / "out").exists()
    log = tmp_path / "out.failed" / "logs" / "train.log"
    assert log.is_file()
    assert f"  {log}" in said


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    ("kind", "signum"),
    [
        ("process", signal.SIGINT),
        pytest.param("process", signal.SIGTERM, marks=pytest.mark.full),
        pytest.param("docker", signal.SIGINT, marks=pytest.mark.docker),
    ],
)
def test_a_signal_stops_everything(tmp_path: Path, kind: str, signum: signal.Signals) -> None:
    if kind == "docker":
        docker_engine(tmp_path)
    out = tmp_path / "out"
    words = (RUN, "--engine", kind, "--out", out, "--weights", "none", "--arch", "resnet18")
    command = [str(word) for word in words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = out / "logs" / "train.log"
    try:
        until(lambda: log.is_file() and "hyperparameters:" in log.read_text(), 400)
        if kind == "process":
            until(lambda: list((out / "ml" / "checkpoints").glob("*")), 200)
            second = call("--engine", "process", "--out", out)
            assert (second.returncode, f"pid {process.pid}" in second.stdout) == (1, True)
        process.send_signal(signum)
        process.communicate(timeout=90)
        assert process.returncode == 128 + signum
    finally:
        process.kill()
        process.wait()
    if kind == "docker":
        assert engine._docker("ps", "-aq", "--filter", f"label={engine.LABEL}={out}") == ""
    else:
        assert mentioning(str(out)) == []
        assert not out.exists()
        assert list((tmp_path / "out.failed" / "ml" / "checkpoints").iterdir())


def test_a_signal_in_the_first_seconds_is_told(tmp_path: Path) -> None:
    """While setup.sh runs, and, without waiting for slow imports, from the first of Python on."""
    (tmp_path / "local_test").mkdir()
    shutil.copy(RUN, tmp_path / "local_test")
    (tmp_path / "local_test" / "setup.sh").write_text("#!/bin/sh\nkill -TERM $PPID\n")
    (tmp_path / "local_test" / "setup.sh").chmod(0o755)
    (python := tmp_path / ".venv" / "bin" / "python").parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    done = subprocess.run([tmp_path / "local_test" / "run.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "run.sh: stopped\n")
    code = "import local_test.__main__, sys; print({'numpy', 'PIL', 'psutil'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_program_that_the_shell_names_is_not_the_job_s(tmp_path: Path, monkeypatch: Patch) -> None:
    """Of a server maybe; a container would not get the variable either."""
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "inference.py")
    data = trees.fill(tmp_path / "data", {"train": 1, "valid": 1, "test": 1})
    it = engine.ProcessEngine()
    staged = stage.stage(tmp_path / "ml", str(data), {"learning-rate": "1"}, None, host=it.host)
    assert engine.train(it, staged, tmp_path / "log") == 1
    assert "unknown hyperparameter learning-rate" in (tmp_path / "log").read_text()


def test_without_a_daemon_auto_takes_processes_and_says_why(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    chosen, why = engine.choose("auto", tmp_path)
    assert chosen.name == "process"
    assert "docker" in why.lower()
    with pytest.raises(LocalError, match="--engine process"):
        engine.choose("docker", tmp_path)
    assert engine.choose("process", tmp_path)[0].name == "process"


def docker_engine(owner: Path) -> DockerEngine:
    version, problem = engine.daemon()
    need(version, f"a Docker daemon ({problem})")
    found = DockerEngine(owner)
    for name in ("train", "serve"):
        found.images[name] = engine.find_image(name)
        need(found.images[name], f"the image byoc-{name} (scripts/build.sh {name})")
    return found


@pytest.mark.docker
def test_with_a_daemon_auto_takes_docker(tmp_path: Path) -> None:
    version, problem = engine.daemon()
    need(version, f"a Docker daemon ({problem})")
    chosen, why = engine.choose("auto", tmp_path)
    assert chosen.name == "docker"
    assert version in why


@pytest.mark.docker
@pytest.mark.timeout(SECONDS)
def test_files_from_the_training_container_belong_to_the_caller(tmp_path: Path, monkeypatch: Patch) -> None:
    docker = docker_engine(tmp_path)
    need(os.getuid() == 0, "root, to take the part of another user")
    user = 12345
    trees.fill(tmp_path / "mine", {"train": 4, "valid": 4, "test": 4})
    hyperparameters = {"arch": "resnet18", "weights": "none", "epochs": "1", "workers": "0"}
    staged = stage.stage(tmp_path / "ml", str(tmp_path / "mine"), hyperparameters, None)
    for path in [staged.tree, *staged.tree.rglob("*")]:
        os.chown(path, user, user)
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(os, "getgid", lambda: user)
    assert engine.train(docker, staged, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-3000:]
    made = list((staged.tree / "model").iterdir())
    # The mount points below input/data are made by this process, which really is root.
    written = [path for path in staged.tree.rglob("*") if "data" not in path.relative_to(staged.tree).parts[1:2]]
    written += list((staged.tree / "output" / "data").iterdir())
    assert {path.stat().st_uid for path in written} == {user}
    assert "model.json" in [path.name for path in made]
    assert {path.stat().st_uid for path in (tmp_path / "mine").rglob("*")} == {0}
