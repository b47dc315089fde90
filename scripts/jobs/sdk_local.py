"""Local mode of the SageMaker SDK: its containers, with its faults mended."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.aws import names
from scripts.aws.errors import CloudError, one_line
from scripts.images import docker
from scripts.jobs.sdk import CONFIG, LocalSession, Model, offline, sagemaker
from scripts.jobs.training_jobs import NO_ROLE


class _Container(sagemaker.local.image._SageMakerContainer):  # type: ignore[misc]
    """Local mode's containers, with its faults mended."""

    @staticmethod
    def _get_compose_cmd_prefix() -> list[str]:
        """The SDK takes a plugin of version 2 only, and passes over the newer ones."""
        command = docker.compose()
        if command is None:
            raise CloudError("Docker Compose is not installed")
        return command

    def _build_optml_volumes(self, host: str, subdirs: set[str]) -> list[Any]:
        """What is mounted has to be there before: the engine would make it, and make it root's.

        A training container also makes folders in /opt/ml, which is the image's, and root's.
        """
        if "input" in subdirs:
            subdirs = subdirs | {"checkpoints", "code"}
        for name in ("model", *(f"{host}/{name}" for name in subdirs)):
            Path(self.container_root, name).mkdir(parents=True, exist_ok=True)
        volumes: list[Any] = super()._build_optml_volumes(host, subdirs)
        return volumes

    def _generate_compose_file(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """A network of the job's own, with its labels. Of the SDK's one for all there are two when two jobs start at
        once, and from then on none can start."""
        content: dict[str, Any] = super()._generate_compose_file(*arguments, **named)
        if "networks" in content:  # not so in Studio
            labels = self.sagemaker_session.config["local"]["container_config"].get("labels", {})
            network = {"name": f"byoc-{Path(self.container_root).name}", "labels": labels}
            content["networks"] = dict.fromkeys(content["networks"], network)
            # JSON is YAML, too.
            Path(self.container_root, sagemaker.local.image.DOCKER_COMPOSE_FILENAME).write_text(json.dumps(content))
        return content


@contextlib.contextmanager
def local_mode(
    folder: Path, container: dict[str, Any], region: str, on_line: Callable[[str], None], *, port: int | None = None
) -> Iterator[LocalSession]:
    """A session of local mode, which works in `folder` and looks for no credentials.

    `container`: what every service of its compose file gets (user, labels ...). `on_line` is given what Compose and
    the containers print, line by line. `port`: of a served endpoint on this machine.
    """
    session = LocalSession(boto_session=offline(region), sagemaker_config=CONFIG)
    local: dict[str, Any] = {"container_root": str(folder), "container_config": container}
    if port is not None:
        local["serving_port"] = port
    session.config = {"local": local}
    # It would tell the containers of an S3 endpoint that they have nothing to do with.
    session.s3_resource = None

    def stream(process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line.decode(errors="replace"))
        return process.wait()

    with contextlib.ExitStack() as replaced:
        replaced.enter_context(_replaced(sagemaker.local.image, "_stream_output", stream))
        # Each makes containers of its own, the last one those that serve; the first asks its own name for Compose.
        for module in (sagemaker.local.image, sagemaker.local.local_session, sagemaker.local.entities):
            replaced.enter_context(_replaced(module, "_SageMakerContainer", _Container))
        yield session


class ServedHere:
    """A model's endpoint in local mode. It is started in a thread, since the SDK looks at /ping every 5 s only."""

    def __init__(self, session: LocalSession, image: str, model: Path, environment: Mapping[str, str]) -> None:
        """`model` is the unpacked folder: from a file, the SDK would mount the folder in which it lies."""
        self._session = session
        self._name = names.unique("local")
        self._model = Model(
            image_uri=image,
            model_data=f"file://{model}",
            role=NO_ROLE,
            env=dict(environment),
            name=self._name,
            sagemaker_session=session,
        )
        self._error: Exception | None = None
        threading.Thread(target=self._start, daemon=True).start()

    def problem(self) -> str | None:
        """Why it is over; None while Compose runs, or is about to."""
        if self._error is not None:
            return one_line(str(self._error))
        process = self._process()
        if process is None or process.poll() is None:
            return None
        assert process.stderr is not None
        said: list[str] = process.stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1] if process.returncode and said else "the container has ended"

    def end_compose(self, seconds: float) -> None:
        """Wait for it, its containers being gone; end it where it does not end by itself."""
        process = self._process()
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()

    def _start(self) -> None:
        try:
            self._model.deploy(1, "local", endpoint_name=self._name, wait=False)
        except Exception as error:
            self._error = error

    def _process(self) -> "subprocess.Popen[bytes] | None":
        endpoint = self._session.sagemaker_client._endpoints.get(self._name)
        thread = getattr(getattr(endpoint, "container", None), "container", None)
        process: subprocess.Popen[bytes] | None = getattr(thread, "process", None)
        return process


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
