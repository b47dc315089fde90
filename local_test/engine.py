"""Where the two programs run: as processes in .venv, or in the two images."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from local_test import stage
from local_test.child import Child
from local_test.errors import LocalError
from local_test.options import ROOT
from local_test.stage import Staged

STOP_SECONDS = 30.0  # what the platform gives a serving container
SHARED_MEMORY = "2g"  # decoding processes hand batches over in /dev/shm, of which Docker gives 64 MB
CLIENT_SECONDS = 20
LABEL = "byoc.local"
FEATURES, FEATURES_IN_CONTAINER = "BYOC_FEATURE_CACHE", "/opt/features"
NOTHING: Mapping[str, str] = {}
JOB_NAME = "local"


class Engine(ABC):
    name: str
    host: str  # the training program's own name in resourceconfig.json
    images: dict[str, str | None]
    features: Path | None = None  # a folder in which trainings share what the frozen layers give

    def train(self, staged: Staged, log: Path) -> int:
        """Run training to its end; its exit code."""
        program = self.start_training(staged, log)
        try:
            return program.child.wait()
        finally:
            program.stop()

    @abstractmethod
    def start_training(
        self,
        staged: Staged,
        log: Path,
        *,
        environment: Mapping[str, str] = NOTHING,
        echo: bool = True,
    ) -> "Program":
        """Start training."""

    @abstractmethod
    def serve(self, model: Path, port: int, log: Path, *, echo: bool = False) -> "Program":
        """Start the server of the model folder on 127.0.0.1:port; it is not ready yet."""


class Program(ABC):
    """A started program. `stop` may be called twice, and leaves nothing of it."""

    child: Child

    @abstractmethod
    def stop(self) -> None: ...


class ProcessEngine(Engine):
    name = "process"
    host = stage.PROCESS_HOST

    def __init__(self) -> None:
        self.images = {"train": None, "serve": None}

    def start_training(
        self,
        staged: Staged,
        log: Path,
        *,
        environment: Mapping[str, str] = NOTHING,
        echo: bool = True,
    ) -> Program:
        stage.link_outside(staged)
        everything = environment_of_processes() | {
            "SAGEMAKER_BASE_DIR": str(staged.tree),
            "TRAINING_JOB_NAME": JOB_NAME,
            "SAGEMAKER_PROGRAM": "",  # one of this shell's, maybe a server's, is not the job's: as in a container
            **({FEATURES: str(self.features)} if self.features else {}),
            **environment,
        }
        command = [sys.executable, "-P", "-m", "container_train.entrypoint"]
        return _Process(Child(command, log, environment=everything, folder=log.parent, echo=echo), STOP_SECONDS)

    def serve(self, model: Path, port: int, log: Path, *, echo: bool = False) -> Program:
        command = [sys.executable, "-P", "-m", "container_serve", "--model-dir", str(model), "--port", str(port)]
        child = Child(command, log, environment=environment_of_processes(), folder=log.parent, echo=echo)
        return _Process(child, STOP_SECONDS + 5)


class _Process(Program):
    def __init__(self, child: Child, seconds: float) -> None:
        self.child, self.seconds = child, seconds

    def stop(self) -> None:
        self.child.stop(self.seconds)


class DockerEngine(Engine):
    """Plain `docker run`, in two steps, so that a container's id is known before anything runs in it."""

    name = "docker"
    host = stage.CONTAINER_HOST

    def __init__(self, owner: Path) -> None:
        """`owner` is the folder of results: containers that a killed run has left for it are removed."""
        self.owner = str(owner)
        self.images = {"train": None, "serve": None}
        self.root = ROOT
        for left in _docker("ps", "-aq", "--filter", f"label={LABEL}={self.owner}").split():
            _docker("rm", "-f", left)

    def find_images(self, names: tuple[str, ...] = ("train", "serve")) -> None:
        """Find or build the images. Raises LocalError when that fails."""
        for name in names:
            self.images[name] = find_image(name) or build_image(name)

    def start_training(
        self,
        staged: Staged,
        log: Path,
        *,
        environment: Mapping[str, str] = NOTHING,
        echo: bool = True,
    ) -> Program:
        stage.make_mount_points(staged)
        options = ["--volume", f"{staged.tree}:/opt/ml", "--shm-size", SHARED_MEMORY, "--hostname", self.host]
        options += ["--env", f"TRAINING_JOB_NAME={JOB_NAME}", "--env", f"BYOC_IMAGE={self.images['train']}"]
        for channel, folder in staged.outside.items():
            options += ["--volume", f"{folder}:/opt/ml/input/data/{channel}:ro"]
        if self.features:
            options += [
                "--volume",
                f"{self.features}:{FEATURES_IN_CONTAINER}",
                "--env",
                f"{FEATURES}={FEATURES_IN_CONTAINER}",
            ]
        for key, value in environment.items():
            options += ["--env", f"{key}={value}"]
        if not _is_rootless():
            # In the cloud it runs as root; here its files must belong to whoever called. A user without a
            # name and a home in the image needs both from the environment.
            options += ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp", "--env", "USER=local"]
        if _has_nvidia_runtime():
            options += ["--gpus", "all"]
        container = self._create(options, "train")
        return _Container(container, _start(container, log, echo=echo))

    def serve(self, model: Path, port: int, log: Path, *, echo: bool = False) -> Program:
        options = ["--volume", f"{model}:/opt/ml/model:ro", "--publish", f"127.0.0.1:{port}:8080"]
        container = self._create(options, "serve")
        return _Container(container, _start(container, log, echo=echo))

    def _create(self, options: list[str], program: str) -> str:
        image = self.images[program]
        assert image is not None
        label = ["--label", f"{LABEL}={self.owner}"]
        return _docker("create", *label, *_security_options(), *options, image, program).strip()


class _Container(Program):
    def __init__(self, container: str, child: Child) -> None:
        self.container, self.child = container, child

    def stop(self) -> None:
        _remove(self.container, self.child)


def choose(wanted: str, owner: Path) -> tuple[Engine, str]:
    """The engine, and why it was taken. Raises LocalError when docker is wanted and no daemon answers."""
    if wanted == "process":
        return ProcessEngine(), "asked for with --engine process"
    version, problem = daemon()
    if version:
        why = "asked for with --engine docker" if wanted == "docker" else "a daemon answers"
        return DockerEngine(owner), f"{why} (Docker {version})"
    if wanted == "docker":
        raise LocalError(f"--engine docker: {problem}; start the daemon, or run without it: --engine process")
    return ProcessEngine(), problem


def daemon() -> tuple[str, str]:
    """The daemon's version, or an empty text and why there is none."""
    if shutil.which("docker") is None:
        return "", "there is no docker client on PATH"
    try:
        version = _docker("version", "--format", "{{.Server.Version}}").strip()
    except LocalError as error:
        return "", f"no Docker daemon answers ({error})"
    return version, "" if version else "no Docker daemon answers"


def find_image(name: str) -> str | None:
    """The image with today's content of this program, whatever base it was built on."""
    content = subprocess.run(
        [ROOT / "scripts" / "build.sh", "--content", name], capture_output=True, text=True, cwd=ROOT
    )
    if content.returncode:
        raise LocalError(f"scripts/build.sh --content {name}: {content.stderr.strip()}")
    tag = "{{.Repository}}:{{.Tag}}"
    listed = _docker("images", "--format", tag, "--filter", f"label=byoc.content={content.stdout.strip()}")
    # build.sh's other targets share files, not hashes; still, an image is taken for what its name says.
    mine = [line for line in listed.split() if f"/byoc-{name}:" in f"/{line}"]
    # One that was pushed has the registry's names too: the plain one says most.
    return min(mine, key=lambda line: "/" in line, default=None)


def build_image(name: str) -> str:
    print(f"the image byoc-{name} is not there yet: building it with scripts/build.sh {name}", flush=True)
    done = subprocess.run([ROOT / "scripts" / "build.sh", name], cwd=ROOT)
    image = find_image(name) if done.returncode == 0 else None
    if image is None:
        raise LocalError(
            f"the image byoc-{name} could not be built: scripts/build.sh --help names what it needs"
            " (a base image, a proxy's certificates); or run without Docker: --engine process"
        )
    return image


def environment_of_processes() -> dict[str, str]:
    """This program's environment, made to find .venv's programs and this repository's packages first."""
    return dict(os.environ) | {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def _start(container: str, log: Path, *, echo: bool) -> Child:
    return Child(["docker", "start", "--attach", container], log, environment=os.environ, folder=log.parent, echo=echo)


def _remove(container: str, child: Child) -> None:
    # `docker stop` of a container that has ended, or is gone, does nothing.
    with contextlib.suppress(LocalError):
        _docker("stop", "-t", str(int(STOP_SECONDS)), container, seconds=STOP_SECONDS + CLIENT_SECONDS)
    with contextlib.suppress(LocalError):
        _docker("rm", "--force", container)
    child.stop(5)


def _docker(*arguments: str, seconds: float = CLIENT_SECONDS) -> str:
    """What the client prints. Raises LocalError with the last line of its complaint."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=seconds, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"docker {arguments[0]} did not answer for {seconds:.0f} s") from None
    if done.returncode:
        raise LocalError((done.stderr.strip() or f"docker {arguments[0]} failed").splitlines()[-1])
    return done.stdout


def _info() -> dict[str, object]:
    info: dict[str, object] = json.loads(_docker("info", "--format", "{{json .}}"))
    return info


def _is_rootless() -> bool:
    """Under a rootless daemon the container's root is the caller."""
    return any("rootless" in option for option in _texts("SecurityOptions"))


def _has_nvidia_runtime() -> bool:
    return "nvidia" in _texts("Runtimes")


def _security_options() -> list[str]:
    """SELinux would keep containers out of the tree; relabelling a user's own pictures is not ours to do."""
    return (
        ["--security-opt", "label=disable"] if any("selinux" in option for option in _texts("SecurityOptions")) else []
    )


def _texts(key: str) -> list[str]:
    values = _info().get(key)
    return [str(value) for value in values] if isinstance(values, (list, dict)) else []
