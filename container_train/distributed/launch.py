"""A job of several processes: torchrun's agent on each host starts one per GPU, or one where there are no GPUs.

An agent knows the processes of its own host only. How the job ends, hosts tell each other through the agents' TCPStore,
whose server is the first host's. Its keys: `beat/N` is a sign of life of a host, `stop` is there once a host was asked
to stop, `end` is the exit code and the line of the job: who sets it first decides for all.
"""

import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is not in __all__
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from container_serve import scratch
from container_train import configuration
from container_train.distributed.cluster import PORT, SCRATCH, TIMEOUT, Cluster, collective_timeout, usable, variable
from container_train.errors import LOST_PEER, STOPPED, Stopped, TrainError
from container_train.paths import SageMakerPaths
from container_train.signals import StopFlag, wait_for_host

PROGRAM = Path(__file__).resolve().parents[1] / "__main__.py"
POLL_SECONDS = 0.2
REASON_SECONDS = 30.0  # that the host of the process that ended first has to say why
SILENT_SECONDS = 20.0  # without a sign of life: the host is lost
SAVING_SECONDS = 100.0  # of the 120 between SIGTERM and SIGKILL
FAREWELL_SECONDS = 5.0
LOST = "is lost: its container ended, or it cannot be reached any more"
End = tuple[int, str]  # exit code and line


def run(cluster: Cluster, arguments: Sequence[str], tree: SageMakerPaths) -> int:
    """Start this host's processes and return the job's exit code. The reason is in the failure file, too."""
    logging.disable()  # the agent's words; its processes speak for themselves
    try:
        collective_timeout()
        named = configuration.read_or_empty(tree, "resourceconfig.json").get("network_interface_name", "")
        interface = usable(str(named)) if len(cluster.hosts) > 1 else "lo"
        with scratch.folder("byoc-ranks-") as folder:
            code, line = _train(cluster, arguments, interface, str(folder))
    except TrainError as error:
        code, line = 1, str(error)
    except Stopped as stopped:
        code, line = STOPPED, f"stopped {stopped}"
    if code:
        print(line if code == STOPPED else f"error: {line}", file=sys.stderr)
        tree.write_failure(line)
    return code


def _train(cluster: Cluster, arguments: Sequence[str], interface: str, folder: str) -> End:
    stop = StopFlag().install()
    hosts = Hosts(cluster, _meet(cluster, stop), stop)
    hosts.start()
    os.environ |= {
        SCRATCH: folder,
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP",  # and not SIGTERM: the processes of all hosts are to stop
        "TORCHELASTIC_ENABLE_FILE_TIMER": "1",
        "TORCHELASTIC_TIMER_FILE": f"{folder}/timer",
        # Processes are started by the path of a file, and find the packages beside its folder wherever that is.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH")))),
    }
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface:
            os.environ.setdefault(name, interface)
    signal.signal(signal.SIGUSR1, lambda *_: None)  # of ProcessGroup.watchdog, which reaches the agent, too
    address, number = hosts.store.host, hosts.store.port
    rendezvous = StaticTCPRendezvous(address, number, cluster.index, len(cluster.hosts), "job", int(REASON_SECONDS))
    spec = WorkerSpec(
        "train", cluster.processes, rendezvous, entrypoint=sys.executable, args=(str(PROGRAM), *arguments),
        max_restarts=0, monitor_interval=0.1, master_addr=address, master_port=number,
        virtual_local_rank=cluster.gpus > 0,
    )  # fmt: skip
    try:
        failures = LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=folder), exit_barrier_timeout=1).run().failures
        end = _end(failures, cluster)
    except RuntimeError as error:  # another host was lost before its processes began
        end = LOST_PEER, f"the processes could not be started: {' '.join(str(error).split())[:200]}"
    return hosts.agree(*end)


def _meet(cluster: Cluster, stop: StopFlag) -> TCPStore:
    """Wait for all hosts. Raises TrainError for one that does not come, Stopped when a stop is asked for."""
    several = len(cluster.hosts) > 1
    address, number = (cluster.hosts[0], variable(PORT, 29400, 65535)) if several else ("127.0.0.1", 0)
    if cluster.index:
        wait_for_host(address, lambda: _listens(address, number), stop)
    try:
        store = TCPStore(
            address, number, is_master=not cluster.index, wait_for_workers=False, multi_tenant=True,
            timeout=timedelta(seconds=REASON_SECONDS),
        )  # fmt: skip
        store.set(f"here/{cluster.index}", "")
        for index, host in enumerate(cluster.hosts):
            wait_for_host(host, partial(store.check, [f"here/{index}"]), stop)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise TrainError(f"port {number} of host {address} cannot be used ({words}): {PORT} names another") from None
    return store


def _listens(host: str, number: int) -> bool:
    with suppress(OSError), socket.create_connection((host, number), timeout=1):
        return True
    return False


class Hosts(threading.Thread):
    """Exchange messages with the other hosts. It ends the processes of this one when the job ends, or is to stop."""

    def __init__(self, cluster: Cluster, store: TCPStore, stop: StopFlag) -> None:
        super().__init__(daemon=True)
        self.cluster, self.store, self.stop = cluster, store, stop
        self.stopping = math.inf  # since then, on the monotonic clock
        self.proposal: End | None = None
        self.end, self.known = (1, f"host {cluster.hosts[0]} {LOST}"), threading.Event()
        self.heard = dict.fromkeys(cluster.hosts, time.monotonic())
        self.over = False  # no process of this host is left

    def agree(self, code: int, line: str) -> End:
        """Return how the job ends if this host's processes have ended so."""
        first, deadline = not self.cluster.index, time.monotonic() + REASON_SECONDS
        self.stop.asked = self.stop.asked or code == STOPPED
        while code == LOST_PEER and not self.known.wait(POLL_SECONDS):
            if self.stopping < math.inf:
                code, line = STOPPED, "stopped; nothing was saved since the last checkpoint"
            elif time.monotonic() > deadline:
                code = 1
        if first or code not in (0, STOPPED):  # whether all is done, or saved, is for the first to say
            self.proposal = self.proposal or (code, line)
        self.known.wait(REASON_SECONDS if code == 1 else None)
        self.over = True
        return self.end

    def run(self) -> None:
        with suppress(RuntimeError):  # the store is gone, and the first host with it
            while not self.store.check(["end"]):
                self._turn(time.monotonic())
                time.sleep(POLL_SECONDS)
            code, line = json.loads(self.store.get("end"))
            self.end, deadline = (code, line), time.monotonic() + FAREWELL_SECONDS
            self.store.add("read", 1)
            # The store ends with the first host, which lets the others read it before.
            while (
                not self.cluster.index and self.store.add("read", 0) < len(self.heard) and time.monotonic() < deadline
            ):
                time.sleep(POLL_SECONDS)
        self.known.set()
        while self.end[0] and not self.over:
            _signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _turn(self, now: float) -> None:
        self.store.set(f"beat/{self.cluster.index}", "")
        for index, host in enumerate([] if self.cluster.index else self.cluster.hosts):
            if self.store.delete_key(f"beat/{index}"):
                self.heard[host] = now
            elif now - self.heard[host] > SILENT_SECONDS:
                self.proposal = self.proposal or (1, f"host {host} {LOST}")
        if self.stop.asked or self.store.check(["stop"]):
            self.stopping = min(self.stopping, now)
            self.store.set("stop", "")
            _signal(signal.SIGTERM if now - self.stopping < SAVING_SECONDS else signal.SIGKILL)
        if self.proposal:
            self.store.compare_set("end", "", json.dumps(self.proposal))


def _signal(number: signal.Signals) -> None:
    """Send it to the processes of this host; a second SIGTERM changes nothing for them."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            child.send_signal(number)


def _end(failures: dict[int, ProcessFailure], cluster: Cluster) -> End:
    """Return how this host's processes ended, from those that failed, by rank and in order."""
    # The agent ends the others when one has failed, within 30 s: their codes say nothing.
    first = min((failure.timestamp for failure in failures.values()), default=0)
    ends = [_say(rank, f, cluster) for rank, f in failures.items() if f.timestamp < first + REASON_SECONDS]
    reasons = [(1, line) for code, line in ends if code not in (LOST_PEER, STOPPED)]
    return (reasons + ends + [(0, "")])[0]


def _say(rank: int, failure: ProcessFailure, cluster: Cluster) -> End:
    """The process's exit code, in as far as it matters, and its line."""
    who, code = f"process {rank} of {cluster.size}, host {cluster.hosts[cluster.index]}", failure.exitcode
    if Path(failure.error_file).is_file():
        return code, failure.message if code == STOPPED else f"{failure.message} ({who})"
    if code >= 0:
        return code, f"{who} ended with code {code} without a message: see its log"
    number = signal.Signals(-code)
    if number == signal.SIGTERM:
        return STOPPED, "stopped before the training began; nothing is lost"
    if number == signal.SIGUSR1:
        return 1, (
            f"no step was finished within {collective_timeout()} s: a process hangs, or hosts cannot reach each other"
            f" ({TIMEOUT} allows more)"
        )
    hint = ": mostly for lack of memory: use a larger instance, or a smaller batch-size"
    # nccl aborts where it has lost another process.
    return LOST_PEER if number == signal.SIGABRT else 1, (
        f"{who} was killed by {number.name}{hint if number == signal.SIGKILL else ''}"
    )
