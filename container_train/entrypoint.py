"""The image's `train`, PID 1: starts the SageMaker training toolkit and passes signals on.

The toolkit runs a user's own program if the job (hyperparameter `sagemaker_program`) or a derived image
(`ENV SAGEMAKER_PROGRAM`) names one. Only otherwise is the program of this package named, in the environment.
The toolkit ignores SIGTERM, and checkpoints would be lost: the signal goes to the toolkit's child from here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil

from container_serve.processes import adopt_orphans, die_with_parent
from container_train import configuration, failure
from container_train.errors import STOPPED, Stopped, TrainError
from container_train.paths import SageMakerPaths, replace_file
from container_train.signals import StopFlag, wait_for_host

POLL_SECONDS = 0.1
ONE_NETWORK = "; all containers of the job need one network in which they have the names of resourceconfig.json"
REPORT_SECONDS = 20.0  # of the 120 between SIGTERM and SIGKILL


def main() -> None:
    tree = SageMakerPaths.from_environment()
    try:
        hyperparameters, hosts = configuration.check(tree)
        for folder in (tree.model, tree.output):
            folder.mkdir(parents=True, exist_ok=True)
        for mark in (tree.failure, tree.success):
            mark.unlink(missing_ok=True)
        stop = StopFlag().install()
        for host in hosts:
            wait_for_host(host, partial(configuration.is_known, host), stop, ONE_NETWORK)
    except TrainError as error:
        _end(tree, str(error))
    except OSError as error:
        _end(tree, f"{error.filename} cannot be written: {error.strerror}")
    except Stopped as early:
        _end(tree, f"stopped {early}", STOPPED)
    program = configuration.own_program(hyperparameters)
    environment = _environment(hyperparameters, program)
    parent = os.getpid()
    adopt_orphans()
    # A session of its own: Ctrl-C reaches the program once, through here, and no process is left at the end.
    toolkit = subprocess.Popen(
        [sys.executable, "-m", "sagemaker_training.cli.train"],
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )
    told: set[int] = set()
    has_run = False
    while toolkit.poll() is None:
        if stop.asked or not has_run:
            running = _children(toolkit.pid)
            has_run = has_run or bool(running)
            if stop.asked:
                # After the program's end the toolkit only reports: a job that is done stays done.
                for process in running if has_run else [psutil.Process(toolkit.pid)]:
                    if process.pid not in told:
                        told.add(process.pid)
                        with contextlib.suppress(psutil.NoSuchProcess):
                            process.terminate()
        time.sleep(POLL_SECONDS)
    if not program:
        _wait_for_report()
    stopped = stop.asked
    with contextlib.suppress(OSError):
        report = tree.failure.read_text(errors="replace")
        if line := failure.of_toolkit(report, program, tree.base / "code", Path(environment["PIP_LOG"])):
            replace_file(tree.failure, f"{line}\n\n{report}".encode())
        stopped = stopped or report.startswith("stopped ")  # maybe through another host of the job
    with contextlib.suppress(ProcessLookupError):
        os.killpg(toolkit.pid, signal.SIGKILL)
    if toolkit.returncode == 0:
        # The toolkit also ends with 0 if it fails to write the failure file, on a full disk for instance.
        sys.exit(0 if tree.success.exists() else 1)
    sys.exit(STOPPED if stopped else toolkit.returncode if toolkit.returncode > 0 else 128 - toolkit.returncode)


def _end(tree: SageMakerPaths, message: str, code: int = 1) -> NoReturn:
    """End before there is a program that could write the failure file."""
    with contextlib.suppress(OSError):
        tree.write_failure(message)
    print(f"train: {message}", file=sys.stderr)
    sys.exit(code)


def _environment(hyperparameters: dict[str, Any], program: str) -> dict[str, str]:
    """Return the toolkit's environment; `program` is the user's own, empty for the built-in one."""
    environment = dict(os.environ)
    # The toolkit changes the working directory: outside of an installed image the packages would not be found.
    packages = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), packages]))
    # Of a user's requirements.txt: the toolkit keeps nothing of pip's output.
    environment.setdefault("PIP_LOG", f"{tempfile.gettempdir()}/byoc-pip-{os.getpid()}.log")
    if not program:
        environment["SAGEMAKER_PROGRAM"] = str(Path(__file__).with_name("__main__.py"))
        # Started by its path: otherwise Python would search the package's own folder first.
        environment["PYTHONSAFEPATH"] = "1"
        # The toolkit would import smdebug, and torch with it, for names of exceptions that this program does not use.
        environment["USE_SMDEBUG"] = "0"
    elif configuration.is_true(hyperparameters, configuration.TORCHRUN) and not environment.get(configuration.MODULE):
        environment[configuration.MODULE] = "container_train.distributed.user_program:main"
    return environment


def _children(parent: int) -> list[psutil.Process]:
    """List what a process runs; of the toolkit, the program, or pip before it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(parent).children() if child.status() != psutil.STATUS_ZOMBIE]
    return []


def _wait_for_report() -> None:
    """Wait for the sidecars of a killed program, which still write the report; a program waits for its own."""
    deadline = time.monotonic() + REPORT_SECONDS
    while time.monotonic() < deadline and _children(os.getpid()):
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
