"""The one command, as a user calls it: all of it once as processes (tests/test_readme.py has the images), then the ways
in which it ends early.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from local_test import engine, outdir, run, stage, weights
from local_test.engine import DockerEngine
from local_test.errors import LocalError
from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "local_test" / "run.sh"
SECONDS = 900


@dataclass(frozen=True)
class Finished:
    out: Path
    log: str
    summary: dict[str, object]


def call(*arguments: object, program: Path = RUN) -> subprocess.CompletedProcess[str]:
    """Both streams in stdout, as on a terminal."""
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)


def mentioning(text: str) -> list[psutil.Process]:
    """Processes with `text` in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(text in word for word in words):
            found.append(process)
    return found


def until(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """run.sh on the sample, as processes."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = call("--engine", "process", "--out", out, "--arch", "resnet18")
    assert done.returncode == 0, done.stdout[-3000:]
    return Finished(out, done.stdout, json.loads((out / "summary.json").read_text()))


@pytest.mark.timeout(SECONDS)
def test_the_whole_path_leaves_its_results(finished: Finished) -> None:
    summary = finished.summary
    assert summary["engine"] == "process"
    assert summary["data"] == "sample"
    assert summary["images"] == {"train": 240, "valid": 60, "test": 60}
    assert summary["classes"] == [
        "astronaut", "brick", "cat", "coffee", "coins", "galaxies", "grass", "gravel", "motorcycle", "rocket",
    ]  # fmt: skip
    accuracy = summary["test_accuracy"]
    assert isinstance(accuracy, float)
    assert 0.3 < accuracy <= 1, "ten classes: chance is 0.1"
    assert summary["precision"] in ("fp32", "int8")
    cold = summary["cold_start_seconds"]
    assert isinstance(cold, float)
    assert 0 < cold < 120
    assert (finished.out / "report.html").stat().st_size > 1000
    assert (finished.out / "profiler-report.html").stat().st_size > 1000
    rules = json.loads((finished.out / "rules.json").read_text())
    assert rules["final"]
    fired = [rule for rule in rules["rules"] if rule["status"] == "fired"]
    assert f"{finished.out / 'profiler-report.html'}; rules: {fired[0]['rule'] if fired else 'none'}" in finished.log
    with tarfile.open(finished.out / "model" / "model.tar.gz") as tar:
        assert {"model.json", "model.pth", "model.xml", "model.bin"} <= set(tar.getnames())
    assert not (finished.out / "served").exists()


@pytest.mark.timeout(SECONDS)
def test_the_table_is_what_curl_got(finished: Finished) -> None:
    rows = finished.summary["predictions"]
    assert isinstance(rows, list)
    assert finished.summary["prediction"] == rows[0]
    assert [row["true"] for row in rows] == finished.summary["classes"]
    table = finished.log[finished.log.index("picture  ") :]
    for row in rows:
        columns = [row["picture"], row["true"], row["predicted"], f"{row['probability']:.3f}"]
        assert re.search(r"\s+".join(map(re.escape, columns)), table)
        assert (finished.out / "ml" / "input" / "data" / row["picture"]).is_file()


@pytest.mark.timeout(SECONDS)
def test_random_weights_are_said_loudly(finished: Finished) -> None:
    is_random = finished.summary["weights"] == "none"
    assert finished.log.count("NO IMAGENET WEIGHTS") == (2 if is_random else 0)
    assert bool(finished.summary["note"]) == is_random


@pytest.mark.timeout(SECONDS)
def test_nothing_is_left_running(finished: Finished) -> None:
    assert mentioning(str(finished.out)) == []


@pytest.mark.timeout(SECONDS)
def test_the_model_is_served_again_and_asked_with_curl(finished: Finished) -> None:
    port = run.free_port()
    archive = finished.out / "model" / "model.tar.gz"
    server = subprocess.Popen(
        [ROOT / "local_test" / "serve_local.sh", "--engine", "process", "--model", archive, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("serving "):
                break
        assert lines[-1].startswith("serving "), "".join(lines)
        picture = finished.out / "ml" / "input" / "data" / "test" / "002.brick" / "0001.jpg"
        done = call(
            picture, "--url", f"http://127.0.0.1:{port}", "--top-k", "2", program=ROOT / "local_test" / "predict.sh"
        )
        assert done.returncode == 0, done.stdout
        assert len(json.loads(done.stdout)["predictions"]) == 2
        server.send_signal(signal.SIGINT)
        assert "POST /invocations" in server.communicate(timeout=60)[0]
        assert server.returncode == 130
    finally:
        server.kill()
        server.wait()
    assert mentioning(f"--port {port}") == []


@pytest.mark.timeout(SECONDS)
def test_a_server_that_ends_is_shown_with_its_reason(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.out / "ml" / "model", tmp_path / "model")
    body = bytearray((tmp_path / "model" / "model.bin").read_bytes())
    body[len(body) // 2] ^= 1
    (tmp_path / "model" / "model.bin").write_bytes(body)
    started = time.monotonic()
    done = call(
        "--engine", "process", "--model", tmp_path / "model", "--port", run.free_port(),
        program=ROOT / "local_test" / "serve_local.sh",
    )  # fmt: skip
    assert done.returncode != 0
    assert "model.bin" in done.stdout
    assert time.monotonic() - started < run.READY_SECONDS / 2


@pytest.mark.timeout(SECONDS)
def test_a_failed_training_keeps_its_code_and_the_results_before(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    before = (finished.out / "summary.json").read_bytes()
    done = call("--engine", "process", "--out", finished.out, "--weights", tmp_path / "bad.pth")
    assert done.returncode == 1
    assert "training failed with exit code 1: " in done.stdout
    assert "bad.pth" in done.stdout
    # It got to no checkpoint: nothing is kept, and nothing claims so.
    assert "what it got to" not in done.stdout
    assert not finished.out.with_name("out.failed").exists()
    assert (finished.out / "summary.json").read_bytes() == before


def test_a_wrong_hyperparameter_is_refused_before_training(tmp_path: Path) -> None:
    done = call("--engine", "process", "--out", tmp_path / "out", "--learning-rate", "1")
    assert done.returncode == 2
    assert "learning-rate" in done.stdout
    assert "training" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.lock"]


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What run.sh says about a mistake, which it finds before it looks at hyperparameters and weights."""
    monkeypatch.setattr(weights, "url_of", lambda *_: pytest.fail("this asks the network"))
    assert run.main([*map(str, arguments), "--engine", "process"]) != 0
    return capsys.readouterr().err.strip()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """run.main sets handlers of its own."""
    kept = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in kept.items():
        signal.signal(each, handler)


def test_a_taken_port_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as holder:
        port = run.free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        said = refused(monkeypatch, capsys, "--out", tmp_path / "out", "--port", port)
    assert said.startswith(f"run.sh: port {port}: ")
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_data_are_checked_before_hyperparameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    said = refused(monkeypatch, capsys, "--out", tmp_path / "out", "--data", tmp_path / "mine", "--epochs", "x")
    assert "no class folders" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_training_that_leaves_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(monkeypatch, capsys, "--out", tmp_path / "out", "--measure", "none")
    assert said.startswith("run.sh: --measure none leaves no model")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_named_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.new").mkdir()
    (tmp_path / "out.new" / "precious").touch()
    said = refused(monkeypatch, capsys, "--out", tmp_path / "out")
    assert "\n" not in said
    assert f"{tmp_path / 'out.new'} " in said
    assert (tmp_path / "out.new" / "precious").exists()


def test_a_typing_error_keeps_what_a_failed_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with outdir.claimed(tmp_path / "out") as out:
        (out.begin() / "model").mkdir()
        (out.new / "model" / "model.tar.gz").touch()
        run.leave(out)
    said = capsys.readouterr().err
    archive = tmp_path / "out.failed" / "model" / "model.tar.gz"
    assert f"./local_test/serve_local.sh --model {archive}" in said
    assert run.main(["--engine", "process", "--out", str(tmp_path / "out"), "--epochs", "0"]) == 2
    said, error = capsys.readouterr()
    assert "the sample is trained with --epochs 60 --lr 0.003" in said
    assert error.strip() == "run.sh: hyperparameter epochs has value '0': expected a whole number from 1 to 10000"
    assert archive.exists()
    assert not (tmp_path / "out.new").exists()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.full)]
)
def test_a_signal_stops_everything(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    out = tmp_path / "out"
    command = [
        str(word) for word in (RUN, "--engine", "process", "--out", out, "--weights", "none", "--arch", "resnet18")
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "out.new" / "logs" / "train.log"
    checkpoints = tmp_path / "out.new" / "ml" / "checkpoints"
    try:
        until(lambda: log.is_file() and "hyperparameters:" in log.read_text(), 400)
        until(lambda: list(checkpoints.glob("*")), 200)
        second = call("--engine", "process", "--out", out)
        assert second.returncode == 1
        assert f"pid {process.pid}" in second.stdout
        process.send_signal(signum)
        process.communicate(timeout=60)
        assert process.returncode == code
    finally:
        process.kill()
        process.wait()
    assert mentioning(str(out)) == []
    assert not out.exists()
    assert list((tmp_path / "out.failed" / "ml" / "checkpoints").iterdir())


def test_an_occupied_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        port = run.free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(LocalError, match=f"port {port}"):
            run.start_server(engine.ProcessEngine(), tmp_path, port, tmp_path / "log")


def test_a_server_is_heard_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    monkeypatch.setattr(engine, "Child", lambda *_, echo, **__: heard.append(echo))
    for echo in (True, False):
        run.start_server(engine.ProcessEngine(), tmp_path, run.free_port(), tmp_path / "log", echo=echo)
    assert heard == [True, False]


def test_without_a_daemon_auto_takes_processes_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
def test_files_from_the_training_container_belong_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = docker_engine(tmp_path)
    need(os.getuid() == 0, "root, to take the part of another user")
    user = 12345
    for name in "cat", "dog":
        for split in "train", "valid", "test":
            folder = tmp_path / "mine" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (64, 64), (number, 255 * (name == "cat"), 0)).save(folder / f"{number}.png")
    hyperparameters = {"arch": "resnet18", "weights": "none", "epochs": "1", "workers": "0"}
    staged = stage.stage(tmp_path / "ml", str(tmp_path / "mine"), hyperparameters, None, is_sample=False)
    for path in [staged.tree, *staged.tree.rglob("*")]:
        os.chown(path, user, user)
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(os, "getgid", lambda: user)
    assert docker.train(staged, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-3000:]
    made = list((staged.tree / "model").iterdir())
    # The mount points below input/data are made by this process, which really is root.
    written = [path for path in staged.tree.rglob("*") if "data" not in path.relative_to(staged.tree).parts[1:2]]
    written += list((staged.tree / "output" / "data").iterdir())
    assert {path.stat().st_uid for path in written} == {user}
    assert "model.json" in [path.name for path in made]
    assert {path.stat().st_uid for path in (tmp_path / "mine").rglob("*")} == {0}


@pytest.mark.docker
@pytest.mark.timeout(SECONDS)
def test_a_signal_stops_the_container(tmp_path: Path) -> None:
    docker_engine(tmp_path)
    out = tmp_path / "out"
    command = [
        str(word) for word in (RUN, "--engine", "docker", "--out", out, "--weights", "none", "--arch", "resnet18")
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "out.new" / "logs" / "train.log"
    try:
        until(lambda: log.is_file() and "hyperparameters:" in log.read_text(), 400)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
    assert engine._docker("ps", "-aq", "--filter", f"label={engine.LABEL}={out}") == ""
