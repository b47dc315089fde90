"""The engines in which the two programs run: as processes in .venv, or in the two Docker images."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from container_serve.settings import PAGE
from container_train.reporting import tracking
from local_test import stage
from local_test.child import STOP_SECONDS, Child
from local_test.errors import LocalError
from local_test.options import ROOT
from local_test.stage import Staged

SHARED_MEMORY = "2g"  # decoding processes hand batches over in /dev/shm, of which Docker gives 64 MB
CLIENT_SECONDS = 20
LABEL = "byoc.local"
FEATURES, FEATURES_IN_CONTAINER = "BYOC_FEATURE_CACHE", "/opt/features"
NOTHING: Mapping[str, str] = {}
JOB_NAME = "local"


class ProcessEngine:
    """The two programs as processes. Both engines start them, and return before they are ready."""

    name = "process"
    host = stage.PROCESS_HOST  # the training program's own name in resourceconfig.json
    features: Path | None = None  # a folder in which trainings share what the frozen layers give

    def __init__(self) -> None:
        """Raises LocalError where this Python is .venv-cloud, which has no torch."""
        if importlib.util.find_spec("torch") is None:
            raise LocalError(f"{sys.prefix} has no torch, which runs without Docker need: run local_test/setup.sh")
        self.images: dict[str, str | None] = {"train": None, "serve": None}

    def find_images(self, *names: str) -> None:
        """Nothing: it needs none."""

    def start_training(
        self, staged: Staged, log: Path, *, environment: Mapping[str, str] = NOTHING, echo: bool = True
    ) -> Child:
        stage.link_outside(staged)
        job = {
            "SAGEMAKER_BASE_DIR": str(staged.tree),
            "TRAINING_JOB_NAME": JOB_NAME,
            "SAGEMAKER_PROGRAM": "",  # one of this shell's, maybe a server's, is not the job's: as in a container
            **({FEATURES: str(self.features)} if self.features else {}),
            **environment,
        }
        return self._start(["container_train.entrypoint"], log, echo, job)

    def serve(self, model: Path, port: int, log: Path, *, echo: bool = False, page: bool = False) -> Child:
        command = ["container_serve", "--model-dir", str(model), "--port", str(port), *(["--page"] if page else [])]
        return self._start(command, log, echo)

    def _start(self, command: list[str], log: Path, echo: bool, job: Mapping[str, str] = NOTHING) -> Child:
        """A module of this repository, in an environment that finds .venv's programs and these packages first."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            **job,
        }
        return Child([sys.executable, "-P", "-m", *command], log, environment=environment, echo=echo)


class DockerEngine:
    """Plain `docker run`, whose client passes SIGTERM on to the container."""

    name = "docker"
    host = stage.CONTAINER_HOST
    features: Path | None = None

    def __init__(self, owner: Path) -> None:
        """`owner` is the folder of results: containers that a killed run has left for it are removed."""
        self.owner = str(owner)
        self.images: dict[str, str | None] = {"train": None, "serve": None}
        for left in _docker("ps", "-aq", "--filter", f"label={LABEL}={self.owner}").split():
            _docker("rm", "--force", left)

    def find_images(self, *names: str) -> None:
        """Find or build them. Raises LocalError when that fails."""
        for name in names:
            self.images[name] = own_image(name)

    def start_training(
        self, staged: Staged, log: Path, *, environment: Mapping[str, str] = NOTHING, echo: bool = True
    ) -> Child:
        stage.make_mount_points(staged)
        info = json.loads(_docker("info", "--format", "{{json .}}"))
        options = ["--shm-size", SHARED_MEMORY, "--hostname", self.host]
        volumes = {staged.tree: "/opt/ml"}
        volumes |= {folder: f"/opt/ml/input/data/{channel}:ro" for channel, folder in staged.outside.items()}
        variables = {"TRAINING_JOB_NAME": JOB_NAME, "BYOC_IMAGE": str(self.images["train"]), **environment}
        if self.features:
            volumes[self.features] = variables[FEATURES] = FEATURES_IN_CONTAINER
        if not any("rootless" in option for option in info.get("SecurityOptions") or ()):
            # In the cloud it runs as root; here its files must belong to whoever called, as root's do under a rootless
            # daemon. A user without a name and a home in the image needs both from the environment.
            options += ["--user", f"{os.getuid()}:{os.getgid()}"]
            variables |= {"HOME": "/tmp", "USER": "local"}
        if "nvidia" in (info.get("Runtimes") or ()):
            options += ["--gpus", "all"]
        for folder, place in volumes.items():
            options += ["--volume", f"{folder}:{place}"]
        for key, value in variables.items():
            options += ["--env", f"{key}={value}"]
        return self._start("train", options, log, echo)

    def serve(self, model: Path, port: int, log: Path, *, echo: bool = False, page: bool = False) -> Child:
        options = ["--volume", f"{model}:/opt/ml/model:ro", "--publish", f"127.0.0.1:{port}:8080"]
        options += ["--env", f"{PAGE}=true"] if page else []
        return self._start("serve", options, log, echo)

    def _start(self, program: str, options: list[str], log: Path, echo: bool) -> Child:
        image = self.images[program]
        assert image is not None
        name = f"byoc-{program}-{uuid.uuid4().hex[:12]}"
        command = ["docker", "run", "--rm", "--name", name, "--label", f"{LABEL}={self.owner}"]
        # SELinux would keep the container out of the tree; relabelling a user's own images is not ours to do. Other
        # systems ignore this.
        command += ["--stop-timeout", str(int(STOP_SECONDS)), "--security-opt", "label=disable", *options]

        def remove() -> None:
            with contextlib.suppress(LocalError):  # it is gone already
                _docker("rm", "--force", name)

        return Child([*command, image, program], log, environment=os.environ, echo=echo, remove=remove)


Engine = ProcessEngine | DockerEngine


def check_tracker(hyperparameters: Mapping[str, object], *, in_image: bool) -> None:
    """Raises LocalError or TrainError where a training, here or in our image, has no package for its `track`."""
    track = str(hyperparameters.get("track", "none")).strip().lower()
    if in_image and track != "none":
        remedy = "use an image made from it (scripts/train.py --local --image), --engine process, or track none"
        raise LocalError(
            f"hyperparameter track has value {track!r}: the training image has no package for it: {remedy}", 2
        )
    tracking.check(track)


def train(engine: Engine, staged: Staged, log: Path) -> int:
    """Run training to its end; its exit code."""
    child = engine.start_training(staged, log)
    try:
        return child.wait()
    finally:
        child.stop()


def choose(wanted: str, owner: Path) -> tuple[Engine, str]:
    """The engine, and why it was taken. Raises LocalError when docker is wanted, or needed, and no daemon answers."""
    if wanted == "process":
        return ProcessEngine(), "asked for with --engine process"
    version, problem = daemon()
    if version:
        why = "asked for with --engine docker" if wanted == "docker" else "a daemon answers"
        return DockerEngine(owner), f"{why} (Docker {version})"
    if wanted == "docker":
        raise LocalError(f"--engine docker: {problem}; start the daemon, or run without it: --engine process")
    if sys.platform != "linux":
        raise LocalError(f"{problem}: start the daemon; without Docker these programs run on Linux only")
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


def find_image(name: str, architecture: str | None = None) -> str | None:
    """The image with today's content of this program, built on any base.

    `architecture`: amd64 or arm64; by default the engine's own.
    """
    content = subprocess.run(
        [ROOT / "scripts" / "build.sh", "--content", name], capture_output=True, text=True, cwd=ROOT
    )
    if content.returncode:
        raise LocalError(f"scripts/build.sh --content {name}: {content.stderr.strip()}")
    labels = {"byoc.content": content.stdout.strip(), "byoc.architecture": architecture or native()}
    filters = [word for key, value in labels.items() for word in ("--filter", f"label={key}={value}")]
    listed = _docker("images", "--format", "{{.Repository}}:{{.Tag}}", *filters)
    # build.sh's other targets share files, not hashes; still, an image is taken for what its name says.
    mine = [line for line in listed.split() if f"/byoc-{name}:" in f"/{line}"]
    # One that was pushed has the registry's names too: the plain one says most.
    return min(mine, key=lambda line: "/" in line, default=None)


def native() -> str:
    """Return the engine's architecture, amd64 or arm64."""
    return _docker("version", "--format", "{{.Server.Arch}}").strip()


def own_image(name: str, architecture: str | None = None) -> str:
    """The image of this repository's files as they are, built where there is none; see `find_image`.

    Raises LocalError.
    """
    architecture = architecture or native()
    if image := find_image(name, architecture):
        return image
    command = ["scripts/build.sh", name, *(() if architecture == "amd64" else ("--platform", f"linux/{architecture}"))]
    print(f"byoc-{name} is not built yet: building it with {' '.join(command)}", file=sys.stderr, flush=True)
    # What build.sh prints as its result is no result of ours.
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
    image = find_image(name, architecture) if done.returncode == 0 else None
    if image is None:
        remedy = "scripts/build.sh --help names what it needs; or run without Docker: --engine process"
        raise LocalError(f"byoc-{name} was not built, the reason stands above: {remedy}")
    return image


def _docker(*arguments: str) -> str:
    """Return what the client prints. Raises LocalError with the last line of its complaint."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=CLIENT_SECONDS, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"docker {arguments[0]} did not answer for {CLIENT_SECONDS} s") from None
    if done.returncode:
        raise LocalError((done.stderr.strip() or f"docker {arguments[0]} failed").splitlines()[-1])
    return done.stdout
