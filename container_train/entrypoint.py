"""The image's `train`, PID 1: starts the SageMaker training toolkit and passes signals on.

The toolkit runs a user's own program when the job brings one (hyperparameter `sagemaker_program`) or a derived image
does (`ENV SAGEMAKER_PROGRAM`). Only when there is none is the program of this package named, in the environment.
The toolkit does not pass SIGTERM on, so that checkpoints would be lost: it goes to the toolkit's child from here.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import psutil

from container_serve.processes import die_with_parent
from container_train import configuration
from container_train.errors import Stopped, TrainError
from container_train.failure import of_requirements
from container_train.monitoring.sidecar import SAMPLER, WATCHER
from container_train.paths import SageMakerPaths, replace_file

POLL_SECONDS = 0.1
REPORT_SECONDS = 20.0  # of the 120 between SIGTERM and SIGKILL
STOPPED = 128 + signal.SIGTERM
KILLED = {  # the program's end by a signal, and what mostly is behind it
    signal.SIGKILL: "want of memory: use a smaller batch-size, fewer workers, or an instance with more memory",
    signal.SIGSEGV: "an error in a library: try amp off, or another instance type",
    signal.SIGBUS: "want of shared memory or disk: use fewer workers, or a larger volume",
}


def give_up(tree: SageMakerPaths, reason: str, code: int = 1) -> NoReturn:
    """End before there is a program that could say why."""
    with contextlib.suppress(OSError):
        tree.write_failure(reason)
    print(f"train: {reason}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    tree = SageMakerPaths.from_environment()
    try:
        hyperparameters, hosts = configuration.check(tree)
    except TrainError as error:
        give_up(tree, str(error))
    own_program = configuration.own_program(hyperparameters)
    environment = dict(os.environ)
    # The toolkit changes the working directory: where this is no installed image, the packages would not be found.
    program = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), program]))
    # Of a user's requirements.txt: the toolkit keeps none of pip's words.
    pip_log = Path(environment.setdefault("PIP_LOG", f"{tempfile.gettempdir()}/byoc-pip-{os.getpid()}.log"))
    if own_program and configuration.wants_torchrun(hyperparameters):
        environment[configuration.MODULE] = (
            environment.get(configuration.MODULE) or "container_train.distributed.user_program:main"
        )
    if not own_program:
        environment["SAGEMAKER_PROGRAM"] = str(Path(__file__).with_name("__main__.py"))
        # Started by its path: without this Python would put the package's own folder in front of all others.
        environment["PYTHONSAFEPATH"] = "1"
        # The toolkit would import smdebug, and torch with it, for the names of exceptions that this program has not.
        environment["USE_SMDEBUG"] = "0"
    try:
        for folder in (tree.model, tree.output):
            folder.mkdir(parents=True, exist_ok=True)
        for mark in (tree.failure, tree.success):
            mark.unlink(missing_ok=True)
    except OSError as error:
        give_up(tree, f"{error.filename} cannot be written: {error.strerror}")

    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        configuration.wait_for_names(hosts, lambda: stopping)
    except TrainError as error:
        give_up(tree, str(error))
    except Stopped as stopped_early:
        give_up(tree, f"stopped {stopped_early}", STOPPED)
    # A session of its own: Ctrl-C reaches the program once, through here, and nothing is left behind at the end.
    parent = os.getpid()
    toolkit = subprocess.Popen(
        [sys.executable, "-m", "sagemaker_training.cli.train"],
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )
    told: set[int] = set()
    has_run = False
    while toolkit.poll() is None:
        if stopping or not has_run:
            running = _children(toolkit.pid)
            has_run = has_run or bool(running)
            if stopping:
                # Once the program has ended, the toolkit is left to report how: a job that is done stays done.
                _terminate(running if has_run else [psutil.Process(toolkit.pid)], told)
        time.sleep(POLL_SECONDS)
    _let_finish(toolkit.pid)
    if own_program:
        say_which(tree, own_program, pip_log)
    else:
        explain(tree.failure)
    lead(tree.failure)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(toolkit.pid, signal.SIGKILL)
    sys.exit(_exit_code(toolkit.returncode, stopping or stopped(tree.failure), tree.success.exists()))


def _children(toolkit: int) -> list[psutil.Process]:
    """List what the toolkit runs: the program, or pip before it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(toolkit).children() if child.status() != psutil.STATUS_ZOMBIE]
    return []


def _terminate(processes: list[psutil.Process], told: set[int]) -> None:
    """Send SIGTERM once to each."""
    for process in processes:
        if process.pid not in told:
            told.add(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()


def stopped(failure: Path) -> bool:
    """Whether the program says that it was stopped: through another host of the job, maybe."""
    with contextlib.suppress(OSError):
        return failure.read_text(errors="replace").startswith("stopped ")
    return False


def explain(failure: Path) -> None:
    """Put first in the failure file what the program could not say itself: that it was killed, and why mostly."""
    with contextlib.suppress(OSError):
        words = failure.read_text(errors="replace")
        found = re.match(r"ExecuteUserScriptError:\s+ExitCode (-?\d+)", words)
        number = abs(int(found[1])) % 128 if found else 0
        if number in KILLED:
            name, why = signal.Signals(number).name, KILLED[signal.Signals(number)]
            replace_file(failure, f"the training program was killed by {name}, mostly for {why}\n\n{words}".encode())


def say_which(tree: SageMakerPaths, program: str, pip_log: Path) -> None:
    """Put first in the failure file which program of the user's ended how: the toolkit keeps none of its words."""
    with contextlib.suppress(OSError):
        words = tree.failure.read_text(errors="replace")
        if words.startswith("InstallRequirementsError:"):
            log = pip_log.read_text(errors="replace") if pip_log.is_file() else ""
            replace_file(tree.failure, f"{of_requirements(log)}\n\n{words}".encode())
        if found := re.match(r"ExecuteUserScriptError:\s+ExitCode (-?\d+)", words):
            line = f"{program} ended with code {found[1]}: see its log"
            if ":" not in program and not (tree.base / "code" / program).exists():  # otherwise a module, or there
                line = f"the program is {program!r} (sagemaker_program), but {tree.base / 'code'} has no such file"
            replace_file(tree.failure, f"{line}\n\n{words}".encode())


def lead(failure: Path) -> None:
    """Of an error of the toolkit's own, which names its reason after a traceback: that line first."""
    with contextlib.suppress(OSError):
        words = failure.read_text(errors="replace")
        if words.startswith("Framework Error:"):
            lines = [line.strip() for line in words.strip().splitlines()]
            errors = [line for line in lines[1:] if re.match(r"[\w.]+(Error|Exception): ", line)]
            reason = (errors or lines)[-1]
            replace_file(failure, f"{reason}\n\n{words}".encode())


def _let_finish(session: int) -> None:
    """Where the program was killed, its watcher still writes the report. (Otherwise the program has waited for it.)"""
    deadline = time.monotonic() + REPORT_SECONDS
    while time.monotonic() < deadline and any(_is_companion(process, session) for process in psutil.process_iter()):
        time.sleep(POLL_SECONDS)


def _is_companion(process: psutil.Process, session: int) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return (
            os.getsid(process.pid) == session
            and process.status() != psutil.STATUS_ZOMBIE
            and any(name in process.cmdline() for name in (WATCHER, SAMPLER))
        )
    return False


def _exit_code(returncode: int, stopping: bool, success: bool) -> int:
    if returncode == 0:
        # The toolkit also ends with 0 when it fails to write the failure file, on a full disk for instance.
        return 0 if success else 1
    if stopping:
        return STOPPED
    return 128 - returncode if returncode < 0 else returncode


if __name__ == "__main__":
    main()
