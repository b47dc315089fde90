"""Local mode: the SDK runs the job in a container on this machine, and nothing of it stays but its results."""

import contextlib
import importlib.util
import os
import re
import signal
import tarfile
import threading
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local_test.errors import Stopped
from scripts.aws.errors import CloudError, one_line
from scripts.console.command import Interrupted, progress, tell_loading
from scripts.environment import ROOT
from scripts.images import engine
from scripts.jobs.training_jobs import STOP_SECONDS, TrainingJobSpec
from scripts.resources import stale

OUT = ROOT / "local_test" / "out.jobs"  # training's results; git takes local_test/out.* for results
SHARED_MEMORY = "2g"  # decoding processes hand batches over in /dev/shm, of which Docker gives 64 MB
REGION = "us-east-1"  # the SDK wants one, and tells it to the container; nothing is sent there
TAIL = 20

# Compose puts the container's name before each of its lines: k2m9x1-algo-1-ab3de  | text
_PREFIX = re.compile(r"^\S+-algo-\d+-\w+\s*\| ?")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Result:
    """`code`: of the training program; `failure`: what it wrote into /opt/ml/output/failure.

    `model` and `output` are archives, and None where there was nothing to put into one.
    """

    code: int
    failure: str
    model: Path | None
    output: Path | None

    @property
    def left(self) -> str:
        """Return, in words, the results of a job that did not end."""
        return f"what it left: {', '.join(str(one) for one in (self.output, self.model) if one) or 'nothing'}"


class Engine:
    """The Docker engine of this machine, as local mode needs it, without what killed calls have left there.

    Raises CloudError where something is missing.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("sagemaker") is None:
            raise CloudError("--local needs the SageMaker SDK, which .venv-cloud lacks: run local_test/setup.sh")
        self.client = engine.connect()
        if engine.compose() is None:
            raise CloudError("--local needs Docker Compose: install docker-compose-plugin or docker-compose")
        info: dict[str, Any] = self.client.info()
        options = " ".join(map(str, info.get("SecurityOptions") or []))
        self.is_rootless, self.has_selinux = "rootless" in options, "selinux" in options
        self.has_gpu = "nvidia" in (info.get("Runtimes") or {})
        stale.prune(self.client)

    def service(self, label: str, work: Path) -> dict[str, Any]:
        """The settings of every container in the compose file; the job works in the folder `work`."""
        options: dict[str, Any] = {
            "labels": {stale.JOB: label, stale.OWNER: stale.me(), stale.FOLDER: str(work)},
            "shm_size": SHARED_MEMORY,
            "stop_grace_period": f"{STOP_SECONDS}s",
        }
        if not self.is_rootless:
            # In the cloud it runs as root; here its files must belong to whoever called.
            options["user"] = f"{os.getuid()}:{os.getgid()}"
        if self.has_selinux:
            # SELinux would keep containers out of the folders; relabelling a user's images is not ours to do.
            options["security_opt"] = ["label=disable"]
        return options

    def environment(self) -> dict[str, str]:
        """A user without a name and a home in the image needs both."""
        return {} if self.is_rootless else {"HOME": "/tmp", "USER": "local"}

    def stop(self, label: str) -> None:
        for container in self._of_job(self.client.containers, label, all=True):
            container.stop(timeout=STOP_SECONDS)

    def exit_code(self, label: str) -> int | None:
        """The worst of the job's containers; None where none was made."""
        containers = self._of_job(self.client.containers, label, all=True)
        return max((int(container.attrs["State"]["ExitCode"]) for container in containers), default=None)

    def remove(self, label: str) -> None:
        for container in self._of_job(self.client.containers, label, all=True):
            container.remove(force=True, v=True)
        for network in self._of_job(self.client.networks, label):
            network.remove()

    def _of_job(self, kind: Any, label: str, **options: Any) -> list[Any]:
        found: list[Any] = kind.list(filters={"label": f"{stale.JOB}={label}"}, **options)
        return found


def train(here: Engine, spec: TrainingJobSpec, work: Path, on_line: Callable[[str], None]) -> Result:
    """Run the job to its end. Ctrl-C stops its container, which may save what it has, and raises KeyboardInterrupt.

    `spec.output` is file://DIR, where model.tar.gz and output.tar.gz are left; once stopped, it raises Interrupted,
    which says so. Raises CloudError where no container came to run.
    """
    tell_loading()
    from scripts.jobs import sdk

    label = uuid.uuid4().hex
    said: list[str] = []  # by Compose itself

    def line(raw: str) -> None:
        stop.try_again()
        text, is_containers = log_line(raw)
        if is_containers:
            on_line(text)
        elif text:
            said.append(text)

    spec = replace(spec, environment={**spec.environment, **here.environment()})
    try:
        with _Stop(lambda: here.stop(label)) as stop:
            with sdk.LocalMode(work, here.service(label, work), spec.region, line) as mode:
                sdk.fit(spec, mode.session)
            code = here.exit_code(label)
    finally:
        here.remove(label)
        output = Path(spec.output.removeprefix("file://"))
        archives = [_kept(output / name) for name in ("model.tar.gz", "output.tar.gz")]
        for folder in (output, output.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()
    result = Result(code or 0, _failure(output / "output.tar.gz"), *archives)
    if stop.asked:
        raise Interrupted(f"interrupted; {result.left}") from Stopped(stop.asked)
    if code is None:
        reason = one_line(" ".join(said[-TAIL:])) or "it said nothing"
        raise CloudError(f"Docker Compose started no container: {reason}")
    return result


def log_line(raw: str) -> tuple[str, bool]:
    """Return a line without what Compose puts before it, and whether a container printed it."""
    text = _COLOURS.sub("", raw).rstrip()
    return _PREFIX.sub("", text), bool(_PREFIX.match(text))


class _Stop:
    """Takes Ctrl-C while the SDK runs, whose own code would lose it: the container is asked to end, and all follows.

    A second Ctrl-C ends it at once. SIGTERM does the same; Ctrl-C stays ignored where it was.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.asked = 0  # the signal
        self._stopping: threading.Thread | None = None

    def __enter__(self) -> "_Stop":
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        taken = [signal.SIGTERM] if is_ignored else [signal.SIGTERM, signal.SIGINT]
        self._previous = {number: signal.signal(number, self._take) for number in taken}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._stopping:
            self._stopping.join()

    def _take(self, signum: int, _frame: types.FrameType | None) -> None:
        if self.asked:
            for number in self._previous:
                signal.signal(number, signal.SIG_IGN)
            raise Stopped(signum)
        self.asked = signum
        progress("stopping the container; press again to leave at once")
        self.try_again()

    def try_again(self) -> None:
        """Ctrl-C may have come before there was a container."""
        if self.asked and (self._stopping is None or not self._stopping.is_alive()):
            self._stopping = threading.Thread(target=self._stop, daemon=True)
            self._stopping.start()


def _kept(archive: Path) -> Path | None:
    """The SDK makes an archive of nothing, too: it lies where a finished one does, and is removed."""
    with contextlib.suppress(OSError, tarfile.TarError), tarfile.open(archive) as tar:
        if any(not member.isdir() for member in tar):
            return archive
    archive.unlink(missing_ok=True)
    return None


def _failure(archive: Path) -> str:
    with contextlib.suppress(OSError, tarfile.TarError, KeyError), tarfile.open(archive) as tar:
        member = tar.extractfile("failure")
        if member:
            return member.read().decode(errors="replace").strip()
    return ""
