"""Several hosts of one training job, each with a tree of its own: processes on loopback, or containers on a network."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests import trees
from tests.contract.training import Job
from tests.docker import engine

# resnet18 has no dropout: what one process and several compute is the same but for the order of the sums.
SAME = {"arch": "resnet18", "epochs": "3", "lr": "0.01", "batch-size": "7"}
_ports = itertools.count(21000 + os.getpid() % 500 * 20, 2)


def names(kind: str, count: int) -> list[str]:
    return [f"127.0.0.{n}" if kind == "process" else f"algo-{n}" for n in range(1, count + 1)]


def tree(
    base: Path,
    here: str,
    hosts: list[str],
    interface: str,
    hyperparameters: Mapping[str, str],
    pictures: Mapping[str, int] | None,
) -> Path:
    trees.tree(base, hyperparameters, pictures)
    config = {"current_host": here, "hosts": hosts, "network_interface_name": interface}
    (base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(config))
    return base


@contextlib.contextmanager
def job(
    kind: str,
    base: Path,
    count: int,
    hyperparameters: Mapping[str, str],
    pictures: Mapping[str, int] | None = None,
    interface: str = "",
    program: str = "",
) -> Iterator[list[Job]]:
    """Start `train` on each host; whatever is left is ended at the end. `program` is that of a user's own, mine.py."""
    hosts = names(kind, count)
    port = str(next(_ports))
    jobs: list[Job] = []
    with contextlib.ExitStack() as stack:
        network = f"byoc-test-{os.getpid()}-{port}"
        if kind == "docker":
            engine.docker("network", "create", "--internal", network)
            stack.callback(engine.docker, "network", "rm", network, check=False)
        for host in hosts:
            named = interface or ("lo" if kind == "process" else "eth0")
            folder = tree(base / host, host, hosts, named, hyperparameters, pictures)
            if program:
                (folder / "code").mkdir()
                (folder / "code" / "mine.py").write_text(program)
            log = stack.enter_context((folder / "log").open("wb"))
            name = f"{network}-{host}" if kind == "docker" else None
            if name:
                command = ["docker", "run", "--rm", "--network", network, "--hostname", host, "--network-alias", host]
                command += ["--name", name, "--env", "OMP_WAIT_POLICY"]
                for part in ("input", "model", "output", "checkpoints"):
                    (folder / part).mkdir(exist_ok=True)
                    command += ["--volume", f"{folder / part}:/opt/ml/{part}"]
                command += [engine.image("train"), "train"]
                environment = dict(os.environ)
                stack.callback(engine.docker, "rm", "--force", name, check=False)
            else:
                command = [sys.executable, "-m", "container_train.entrypoint"]
                environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(folder), "BYOC_PORT": port}
                # Where there is a GPU they share it, which nccl allows to processes of different hosts only.
                environment["NCCL_HOSTID"] = host
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            jobs.append(Job(folder, process, folder / "log", name))
        yield jobs


def finish(jobs: list[Job], seconds: float = 300) -> list[int]:
    """Exit codes; all hosts within so many seconds."""
    deadline = time.monotonic() + seconds
    return [one.wait(max(1, deadline - time.monotonic())) for one in jobs]


def ranks(one: Job) -> list[psutil.Process]:
    """The processes on that host that train."""
    found = []
    for process in psutil.Process(one.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "RANK" in process.environ() and "__main__.py" in " ".join(process.cmdline()):
                found.append(process)
    return [process for process in found if process.ppid() not in {p.pid for p in found}]


def metric(text: str, name: str) -> list[float]:
    """One metric of a log, epoch by epoch."""
    return [float(value) for value in re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)]


def curves(text: str) -> dict[str, list[float]]:
    """The metrics of a log that have to be the same on any number of hosts, epoch by epoch."""
    return {name: metric(text, name) for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")}


def kill_all(one: Job) -> None:
    """As if the host had lost its power: nobody there says goodbye."""
    family = psutil.Process(one.process.pid).children(recursive=True)
    for process in [psutil.Process(one.process.pid), *family]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def kill_in_container(one: Job) -> None:
    """SIGKILL to the process that trains, within the container."""
    script = (
        "import os, psutil\n"
        "for p in psutil.process_iter():\n"
        "    if p.pid != os.getpid() and 'RANK' in p.environ() and '__main__.py' in ' '.join(p.cmdline()): p.kill()\n"
    )
    assert one.container
    engine.docker("exec", one.container, "python", "-c", script)
