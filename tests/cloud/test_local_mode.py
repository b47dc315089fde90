"""train.py --local: what the container sees there and in the cloud, field by field, and that nothing of it stays."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import train
from scripts.images import engine as docker_engine
from scripts.jobs import local_mode
from scripts.resources import stale
from tests import trees
from tests.cloud.conftest import HERE, REGION, TRAIN_IMAGE, Call
from tests.conftest import Patch, need
from tests.docker import engine
from tests.faults import hosts
from tests.local_test.runs import until

ROOT = Path(__file__).parents[2]
NOBODY = 65534

# In the place of the image's `train`: writes down what it sees, and does what the environment says.
PROGRAM = """#!/usr/bin/env python3
import json, os, pathlib, signal, sys, time
ml = pathlib.Path("/opt/ml")
shm = os.statvfs("/dev/shm")
config = {path.name: json.loads(path.read_text()) for path in (ml / "input/config").iterdir()}
channels = {path.name: sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
            for path in (ml / "input/data").iterdir()}
seen = {"arguments": sys.argv[1:], "environment": dict(os.environ), "config": config, "channels": channels,
        "user": [os.getuid(), os.getgid()], "shared_memory": shm.f_blocks * shm.f_frsize,
        "began": time.time()}
(ml / "output/data/seen.json").write_text(json.dumps(seen))
print("epoch=1 train_loss=0.5 valid_accuracy=0.75", flush=True)
behave = os.environ.get("BEHAVE")
if not behave:
    (ml / "model/model.txt").write_text("trained")
if behave == "fail":
    (ml / "output/data/report.html").write_text("a report")
    (ml / "output/failure").write_text("the pictures are too beautiful\\n\\nTraceback: long")
    sys.exit(3)
if behave == "wait":
    def stop(*_):
        print("saving a checkpoint", flush=True)
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    print("waiting", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def label(monkeypatch: Patch) -> str:
    """The label of this test's job; other jobs may run on this engine."""
    text = f"test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setattr(local_mode, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=text)))
    return text


def left(label: str) -> list[str]:
    """Containers and networks of a job."""
    chosen = ("--quiet", "--filter", f"label={stale.JOB}={label}")
    return (engine.docker("ps", "--all", *chosen).stdout + engine.docker("network", "ls", *chosen).stdout).split()


@pytest.fixture(scope="module")
def writing_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The training image, with PROGRAM for its `train`."""
    folder = tmp_path_factory.mktemp("image")
    program = folder / "train"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    tag = f"byoc-train-writes:{os.getpid()}"
    container = engine.docker("create", engine.image("train")).stdout.strip()
    try:
        engine.docker("cp", str(program), f"{container}:/usr/local/bin/train")
        engine.docker("commit", container, tag)
        yield tag
    finally:
        engine.docker("rm", "--force", container, check=False)
        engine.docker("rmi", "--force", tag, check=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})


def read(archive: str, name: str) -> dict[str, Any]:
    """A JSON file of an archive."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member
        found: dict[str, Any] = json.load(member)
    return found


@pytest.mark.docker
def test_the_container_sees_the_same_as_in_the_cloud(
    writing_image: str, pictures: Path, tmp_path: Path, label: str, call: Call
) -> None:
    weights = tmp_path / "backbone.pth"
    weights.write_bytes(b"weights")
    job = ["--data", str(pictures), "--weights", str(weights), "--name", "byoc-same", "--environment", "A=b c=d",
           "--epochs", "3", "--lr", "0.01", "--augment", "flip"]  # fmt: skip
    *uploads, created = call(train, *job, "--image", TRAIN_IMAGE, *HERE, "--dry-run").json
    cloud = created["request"]
    out = tmp_path / "out"
    ended = call(train, "--local", *job, "--image", writing_image, "--region", REGION, "--output", out, "--json")
    assert (ended.code, left(label)) == (0, []), ended.err
    done = ended.json
    seen = read(done["output"], "data/seen.json")

    # The image, started the same way. Its name is told to the program, which writes it into the artifact.
    assert seen["arguments"] == []
    told = {"BYOC_IMAGE": cloud["AlgorithmSpecification"]["TrainingImage"]}
    assert cloud["Environment"] == told | {"A": "b c=d"}

    # Hyperparameters: the same file, to the letter.
    assert seen["config"]["hyperparameters.json"] == cloud["HyperParameters"]
    assert cloud["HyperParameters"] == {"epochs": "3", "lr": "0.01", "augment": "flip"}

    # Environment: what the image has, what the job says, and what the platform adds.
    image = dict(pair.split("=", 1) for pair in engine.inspect(writing_image)["Config"]["Env"])
    platform = {"AWS_REGION": REGION, "TRAINING_JOB_NAME": cloud["TrainingJobName"]}
    mine = {"HOME": "/tmp", "USER": "local"}  # as it does not run as root here
    expected = image | cloud["Environment"] | platform | mine | {"BYOC_IMAGE": writing_image}
    of_the_container = {"HOSTNAME", "TERM", "LC_CTYPE"}
    assert {key: value for key, value in seen["environment"].items() if key not in of_the_container} == expected

    # Channels: the same names, mode, and files as S3 would hold below each channel's prefix.
    channels = seen["config"]["inputdataconfig.json"].items()
    modes = {name: channel["TrainingInputMode"] for name, channel in channels}
    mode = cloud["AlgorithmSpecification"]["TrainingInputMode"]
    assert modes == {channel["ChannelName"]: mode for channel in cloud["InputDataConfig"]}
    keys = [f"s3://{upload['request']['Bucket']}/{upload['request']['Key']}" for upload in uploads]
    in_s3: dict[str, list[str]] = {}
    for channel in cloud["InputDataConfig"]:
        prefix = channel["DataSource"]["S3DataSource"]["S3Uri"]
        below = [key.removeprefix(prefix) or key.rpartition("/")[2] for key in keys if key.startswith(prefix)]
        in_s3[channel["ChannelName"]] = sorted(below)
    assert seen["channels"] == in_s3
    assert seen["channels"]["weights"] == ["backbone.pth"]
    assert len(seen["channels"]["train"]) == 6

    # Hosts: one, of which the program is told in the same words.
    resources = seen["config"]["resourceconfig.json"]
    assert len(resources["hosts"]) == cloud["ResourceConfig"]["InstanceCount"] == 1
    assert resources["current_host"] in resources["hosts"]

    # Outputs: OUTPUT/NAME/output/, as the service lays them out.
    folder = out / cloud["TrainingJobName"] / "output"
    assert sorted(path.name for path in folder.iterdir()) == ["model.tar.gz", "output.tar.gz"]
    assert (done["model"], done["output"]) == (str(folder / "model.tar.gz"), str(folder / "output.tar.gz"))
    with tarfile.open(done["model"]) as tar:
        assert tar.getnames() == ["model.txt"]

    # Beside the contract: whose files these are, and room for the processes that decode.
    assert seen["user"] == [os.getuid(), os.getgid()]
    assert seen["shared_memory"] == 2 * 1024**3
    assert "  epoch 1: train_loss 0.5, valid_accuracy 0.75" in ended.err.splitlines()
    assert list(out.iterdir()) == [out / "byoc-same"]


@pytest.fixture
def as_user() -> list[str]:
    """In front of a command, as root: it is run by a user who may use Docker and nothing else."""
    need(engine.available(), "a Docker engine")
    if os.getuid() != 0:
        return []
    need(shutil.which("setpriv"), "setpriv (util-linux), as the tests run as root")
    group = Path("/var/run/docker.sock").stat().st_gid
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={group}"]
    environment = {**os.environ, "HOME": "/tmp", "DOCKER_CONFIG": "/tmp"}
    for command_line in ([sys.executable, "-c", "import boto3"], ["docker", "version"]):
        done = subprocess.run([*prefix, *command_line], env=environment, cwd="/tmp", capture_output=True)
        need(done.returncode == 0, f"{command_line[0]} for a user who is not root")
    return prefix


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The curves of a job of one process."""
    with hosts.job("process", tmp_path_factory.mktemp("alone"), 1, hosts.SAME) as jobs:
        assert hosts.finish(jobs) == [0], jobs[0].text()
    return hosts.curves(jobs[0].text())


@pytest.mark.docker
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.full), 2, pytest.param(3, marks=pytest.mark.full)])
def test_the_real_image_by_a_user_who_is_not_root(
    count: int, as_user: list[str], alone: dict[str, list[float]]
) -> None:
    """Results are the caller's, and nothing of the container's stays; all hosts train what one process does."""
    image = engine.image("train")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        out = folder / "out"
        out.mkdir()
        if as_user:
            os.chown(out, NOBODY, NOBODY)
        environment = {**os.environ, "HOME": str(out), "DOCKER_CONFIG": str(out)}
        hyperparameters = {**trees.SMALL, **hosts.SAME}
        words = [word for key, value in hyperparameters.items() for word in (f"--{key}", value)]
        done = subprocess.run(
            [*as_user, sys.executable, str(ROOT / "scripts" / "train.py"), "--local", "--image", image,
             "--instance-count", str(count),
             "--data", str(trees.fill(folder / "pets")), "--name", "byoc-real", "--output", str(out), "--spot",
             "--tags", "a=b", "--json", *words],
            env=environment, capture_output=True, text=True, timeout=500, cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for container in engine.docker("ps", "--all", "--quiet").stdout.split():
            assert str(folder) not in engine.docker("inspect", container, check=False).stdout
        result = json.loads(done.stdout)
        assert result["status"] == "Completed"
        assert f"processes: {count}" in done.stderr or count == 1
        assert 0 <= result["metrics"]["test_accuracy"] <= 1
        assert "no effect in local mode: --spot, --tags" in done.stderr
        with tarfile.open(result["model"]) as tar:
            assert sorted(tar.getnames()) == ["model.bin", "model.json", "model.pth", "model.xml"]
        model = read(result["model"], "model.json")
        assert model["classes"] == list(trees.LABELS)
        assert (model["training"]["job"], model["training"]["image"]) == ("byoc-real", image)
        with tarfile.open(result["output"]) as tar:
            assert {"data/report.html", "data/metrics.json"} <= set(tar.getnames())
        epochs = read(result["output"], "data/metrics.json")["epochs"]
        for name, values in alone.items():
            assert [epoch[name] for epoch in epochs] == pytest.approx(values, abs=1e-4), name
        found = list(out.rglob("*"))
        assert {path.stat().st_uid for path in found} == {NOBODY if as_user else os.getuid()}
        files = {path for path in found if path.is_file()}
        assert files == {out / "byoc-real" / "output" / f"{name}.tar.gz" for name in ("model", "output")}


def test_whatever_compose_there_is_is_used(tmp_path: Path, monkeypatch: Patch) -> None:
    """The SDK knows plugins of version 2 only, and gives training and serving one network for all jobs."""
    from scripts.jobs import sdk  # imports the SDK in its own way

    monkeypatch.setattr(docker_engine, "compose", lambda: ["docker", "compose"])
    with sdk.LocalMode(tmp_path, {"labels": {"a": "b"}}, REGION, print) as mode:
        for name in ("entities", "local_session"):
            container = sys.modules[f"sagemaker.local.{name}"]._SageMakerContainer("local", 1, "image", mode.session)
            assert container.compose_cmd_prefix == ["docker", "compose"]
            container.container_root = container._create_tmp_folder()
            (network,) = container._generate_compose_file("serve")["networks"].values()
            assert network == {"name": f"byoc-{Path(container.container_root).name}", "labels": {"a": "b"}}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("session", "self._intercept_create_request(train_request, submit, self.train.__name__)"),
        ("local.image", "class _SageMakerContainer("),
        ("local.image", "_SageMakerContainer._get_compose_cmd_prefix()"),
        ("local.image", "self._build_optml_volumes(host,"),
        ("local.image", "self._generate_compose_file("),
        ("local.image", "_stream_output(process)"),
        ("local.local_session", "_SageMakerContainer("),
        ("local.entities", "_SageMakerContainer("),
        *((module, "validate_sagemaker_config(") for module in ("session", "utils", "local.local_session")),
    ],
)
def test_the_sdk_calls_what_is_replaced_in_it(module: str, text: str) -> None:
    """A private name that moves would leave its replacement without effect."""
    importlib.import_module("scripts.jobs.sdk")
    assert text in Path(str(sys.modules[f"sagemaker.{module}"].__file__)).read_text()


@pytest.fixture
def job(writing_image: str, pictures: Path, tmp_path: Path) -> tuple[object, ...]:
    data = ("--data", pictures, "--weights", "none", "--output", tmp_path / "out")
    return ("--local", "--image", writing_image, *data)


@pytest.mark.docker
@pytest.mark.timing
def test_the_container_starts_within_ten_seconds(job: tuple[object, ...]) -> None:
    """Of the call of the script, the import of the SDK included."""
    began = time.time()
    command_line = [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, job), "--json"]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read(json.loads(done.stdout)["output"], "data/seen.json")["began"] - began <= 10


@pytest.mark.docker
def test_a_failed_job(job: tuple[object, ...], tmp_path: Path, label: str, call: Call) -> None:
    ended = call(train, *job, "--name", "f", "--environment", "BEHAVE=fail", "--json")
    assert (ended.code, left(label)) == (3, [])
    done = ended.json
    assert (done["status"], done["exit_code"], done["model"]) == ("Failed", 3, None)
    assert done["failure"].startswith("the pictures are too beautiful")
    archive = tmp_path / "out" / "f" / "output" / "output.tar.gz"
    failed = "train.py: training failed with exit code 3: the pictures are too beautiful"
    assert ended.last == f"{failed}; what it left: {archive}"
    assert list(archive.parent.iterdir()) == [archive]  # no model.tar.gz of nothing
    # Results of an earlier job are not lost.
    call(train, *job, "--name", "f").ends(2, f"{tmp_path / 'out' / 'f'} already exists")


@pytest.mark.docker
def test_ctrl_c_lets_the_container_end_and_leaves_nothing(
    job: tuple[object, ...], tmp_path: Path, label: str, call: Call
) -> None:
    networks: list[str] = []

    def waiting() -> list[str]:
        """The job's container, once it waits."""
        found = engine.docker("ps", "-q", "--filter", f"label={stale.JOB}={label}").stdout.split()
        return [one for one in found if "waiting" in engine.docker("logs", one, check=False).stdout]

    def interrupt() -> None:
        until(waiting, 60)
        (container,) = json.loads(engine.docker("inspect", *waiting()).stdout)
        networks.extend(container["NetworkSettings"]["Networks"])
        os.kill(os.getpid(), signal.SIGTERM)  # which command.run takes as it takes Ctrl-C

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    ended = call(train, *job, "--name", "i", "--environment", "BEHAVE=wait")
    watcher.join()
    assert (ended.code, ended.out, left(label)) == (143, "", [])
    # The job's own. Of the SDK's one for all, two jobs that start at once make two, of which Compose can choose none.
    (network,) = networks
    assert network.startswith("byoc-")
    assert "  saving a checkpoint" in ended.err.splitlines()
    archive = tmp_path / "out" / "i" / "output" / "output.tar.gz"
    assert ended.last == f"train.py: interrupted; what it left: {archive}"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [archive]


def test_what_is_missing_is_said_in_one_line(pictures: Path, tmp_path: Path, call: Call, monkeypatch: Patch) -> None:
    job = ("--local", "--data", pictures, "--output", tmp_path / "out")
    with monkeypatch.context() as without:
        without.setattr(docker_engine, "connect", lambda: None)
        without.setattr(docker_engine, "compose", lambda: None)
        assert "--local needs Docker Compose" in call(train, *job).last
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        assert "--local needs the SageMaker SDK" in call(train, *job).last
    target = local_mode.OUT / "byoc-train-1" / "output" / "model.tar.gz"
    ignored = subprocess.run(["git", "check-ignore", "-q", str(target)], cwd=ROOT)
    assert ignored.returncode == 0, "git takes results for files of its own"


@pytest.mark.docker
def test_an_image_that_is_nowhere(pictures: Path, tmp_path: Path, label: str, call: Call) -> None:
    need(engine.available(), "a Docker engine")
    image = ("--image", "127.0.0.1:9/byoc-train:none")
    ended = call(train, "--local", *image, "--data", pictures, "--output", tmp_path / "out")
    assert (ended.code, left(label)) == (1, [])
    assert "is not on this machine, and cannot be pulled" in ended.last
