"""The real `train` over a real /opt/ml tree: as a process of this environment, or as the image's command."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docker import engine


@dataclass
class Job:
    """A started job; `log` holds what it prints, stdout and stderr."""

    base: Path
    process: subprocess.Popen[bytes]
    log: Path
    container: str | None = None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 300) -> int:
        return self.process.wait(timeout=seconds)

    def wait_for(self, words: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert self.process.poll() is None, f"ended before {words!r}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {words!r} in {seconds} s:\n{self.text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop as the platform does: SIGTERM to PID 1."""
        if self.container:
            engine.docker("kill", "--signal", "TERM", self.container)
        else:
            self.process.send_signal(signal.SIGTERM)

    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()


@contextlib.contextmanager
def training(kind: str, base: Path, passed: Sequence[str] = ()) -> Iterator[Job]:
    """Start `train` over the tree `base`; whatever is left of it is ended at the end.

    A container gets the environment variables `passed`, a process all of them.
    """
    log = base / "log"
    name = f"byoc-test-{os.getpid()}-{time.monotonic_ns()}" if kind == "docker" else None
    if name:
        command = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--name", name]
        for variable in ("OMP_WAIT_POLICY", *passed):  # tests/conftest.py says why the first
            command += ["--env", variable]
        # Root in the container, as in the cloud; what it leaves is handed back to the caller below.
        for folder in ("input", "code", "model", "output", "checkpoints"):
            (base / folder).mkdir(exist_ok=True)
            command += ["--volume", f"{base / folder}:/opt/ml/{folder}"]
        command += [engine.image("train"), "train"]
        environment = dict(os.environ)
    else:
        command = [sys.executable, "-m", "container_train.entrypoint"]
        environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base)}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            yield Job(base, process, log, name)
        finally:
            if name:
                engine.docker("rm", "--force", name, check=False)
            process.kill()
            process.wait()
