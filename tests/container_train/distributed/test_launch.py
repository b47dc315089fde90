"""Hosts among themselves, without a training. (Whole jobs: tests/faults/test_hosts.py.)"""

import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is not in __all__
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from container_train.distributed import launch
from container_train.distributed.cluster import TIMEOUT, Cluster
from container_train.distributed.launch import Hosts
from container_train.errors import LOST_PEER, STOPPED, TrainError
from container_train.signals import StopFlag
from tests.contract.serving import until

NAMES = ["algo-1", "algo-2", "algo-3"]


def cluster(index: int) -> Cluster:
    return Cluster(NAMES, index, 0)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store: TCPStore, *indices: int) -> list[Hosts]:
    """Hosts as threads of this process, each with its own connection."""
    clients = [TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False) for _ in indices]
    hosts = [Hosts(cluster(index), client, StopFlag()) for index, client in zip(indices, clients, strict=True)]
    for host in hosts:
        host.start()
    return hosts


def agree(hosts: list[Hosts], *ends: tuple[int, str]) -> list[tuple[int, str]]:
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(lambda host, end: host.agree(*end), hosts, ends))


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(0, ""), (0, ""), (0, "")], (0, "")),
        ([(LOST_PEER, "a peer is lost"), (1, "no weights"), (LOST_PEER, "a peer is lost")], (1, "no weights")),
        ([(0, ""), (0, ""), (1, "killed")], (1, "killed")),  # the first goes on for long after the others
        ([(STOPPED, "stopped in step 3"), (0, ""), (LOST_PEER, "a peer is lost")], (STOPPED, "stopped in step 3")),
        ([(LOST_PEER, "a peer is lost"), (STOPPED, "stopped before the training began"), (0, "")],
         (STOPPED, "stopped; nothing was saved since the last checkpoint")),
    ],
)  # fmt: skip
def test_all_hosts_end_alike(
    ends: list[tuple[int, str]], expected: tuple[int, str], store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_signal", lambda _: None)  # it is this process whose children they would end
    hosts = start(store, 0, 1, 2)
    if expected == (1, "killed"):
        assert hosts[2].agree(1, "killed") == expected
    assert agree(hosts, *ends) == [expected] * 3


def test_a_peer_that_is_lost_without_a_reason_is_the_reason(store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_signal", lambda _: None)
    monkeypatch.setattr(launch, "REASON_SECONDS", 1.0)
    hosts = start(store, 0, 1, 2)
    lost = (LOST_PEER, "another process of the job is lost")
    assert agree(hosts, lost, lost, lost) == [(1, lost[1])] * 3


def test_a_host_that_gives_no_sign_of_life_is_named(store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_signal", lambda _: None)
    monkeypatch.setattr(launch, "SILENT_SECONDS", 2.0)
    hosts = start(store, 0, 1)
    assert all(host.known.wait(20) for host in hosts)
    expected = (1, "host algo-3 is lost: its container ended, or it cannot be reached any more")
    assert agree(hosts, (LOST_PEER, ""), (LOST_PEER, "")) == [expected] * 2


def test_the_first_host_is_named_when_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_signal", lambda _: None)
    program = (
        "import time; from torch.distributed import TCPStore\n"
        "store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)\n"
        "print(store.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        client = TCPStore("127.0.0.1", int(first.stdout.readline()), is_master=False, wait_for_workers=False)
        host = Hosts(cluster(1), client, StopFlag())
        host.start()
        first.kill()
    assert host.known.wait(20)
    assert host.agree(0, "") == (1, "host algo-1 is lost: its container ended, or it cannot be reached any more")


def test_a_stop_of_one_host_reaches_the_processes_of_all(store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: set[signal.Signals] = set()
    monkeypatch.setattr(launch, "_signal", sent.add)
    hosts = start(store, 0, 1, 2)
    hosts[1].stop.asked = True
    until(lambda: all(host.stopping < float("inf") for host in hosts), "all are told", 10)
    until(lambda: signal.SIGTERM in sent, "the processes are told", 10)
    monkeypatch.setattr(launch, "SAVING_SECONDS", 0.0)
    until(lambda: signal.SIGKILL in sent, "those that do not end are killed", 10)
    assert agree(hosts, (STOPPED, "stopped"), (0, ""), (0, "")) == [(STOPPED, "stopped")] * 3


def failure(folder: Path, rank: int, code: int, message: str = "", timestamp: int = 0) -> ProcessFailure:
    file = folder / f"{rank}.json"
    if message:
        file.write_text(json.dumps({"message": message, "timestamp": timestamp}))
    found = ProcessFailure(rank, 1, code, str(file))
    found.timestamp = timestamp
    return found


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], (0, "")),
        ([(0, LOST_PEER, "a peer is lost", 7)], (LOST_PEER, "a peer is lost (process 0 of 3, host algo-1)")),
        # The one with a reason, though the others were found first.
        ([(0, LOST_PEER, "a peer is lost", 7), (1, 1, "wrong", 7)], (1, "wrong (process 1 of 3, host algo-1)")),
        ([(0, LOST_PEER, "a peer is lost", 7), (1, -9, "", 8)],
         (1, "process 1 of 3, host algo-1 was killed by SIGKILL: mostly for lack of memory: use a larger instance, or a"
             " smaller batch-size")),
        # The agent killed it half a minute later, and had asked it to stop.
        ([(1, LOST_PEER, "a peer is lost", 7), (0, -9, "", 40)],
         (LOST_PEER, "a peer is lost (process 1 of 3, host algo-1)")),
        ([(1, 3, "", 7), (0, STOPPED, "stopped after 3 steps", 8)],
         (1, "process 1 of 3, host algo-1 ended with code 3 without a message: see its log")),
        ([(0, STOPPED, "stopped after 3 steps", 7)], (STOPPED, "stopped after 3 steps")),
        ([(0, -15, "", 7)], (STOPPED, "stopped before the training began; nothing is lost")),
        ([(2, -6, "", 7)], (LOST_PEER, "process 2 of 3, host algo-1 was killed by SIGABRT")),
        ([(0, -10, "", 7)],
         (1, f"no step was finished within 1800 s: a process hangs, or hosts cannot reach each other ({TIMEOUT} allows"
             " more)")),
    ],
)  # fmt: skip
def test_the_reason_of_a_host_is_that_of_the_process_which_has_one(
    failures: list[tuple[int, int, str, int]], expected: tuple[int, str], tmp_path: Path
) -> None:
    found = {one[0]: failure(tmp_path, *one) for one in failures}
    code, line = launch._end(found, cluster(0))
    assert (code, line) == expected


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv("BYOC_PORT", str(taken.getsockname()[1]))
        with pytest.raises(TrainError, match=r"port \d+ of host 127.0.0.1 cannot be used .*: BYOC_PORT names another"):
            launch._meet(Cluster(["127.0.0.1", "127.0.0.2"], 0, 0), StopFlag())
