"""Launchers among themselves, without a training. (Whole jobs: tests/faults/test_hosts.py.)"""

import contextlib
import functools
import json
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_train import hyperparameters
from container_train.distributed import launch, pulse
from container_train.distributed.layout import PORT, Layout, port, usable
from container_train.distributed.link import LONGEST
from container_train.distributed.ranks import Ranks
from container_train.distributed.verdict import Verdict
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from tests.contract.serving import free_port, until

HOSTS = ("127.0.0.1", "127.0.0.2")
FIRST, SECOND = (Layout(HOSTS, host, "lo", 0) for host in HOSTS)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[launch.First]:
    monkeypatch.setenv(PORT, str(free_port()))
    part = launch.First(FIRST, limit=60)
    yield part
    for link in (*part.unknown, *part.links.values()):
        link.close()
    assert part.listener is not None
    part.listener.close()


def known(first: launch.First, host: str) -> bool:
    first.turn()
    return host in first.links


def told(first: launch.First, seconds: float) -> bool:
    first.turn()
    return first.quiets.get(HOSTS[1]) == seconds


def test_all_that_wait_for_each_other_for_too_long_are_given_up(first: launch.First) -> None:
    other = launch.Other(SECOND)
    other.turn()
    until(lambda: known(first, HOSTS[1]), "the other host", 5)
    for mine, theirs, over in ((61, 3, False), (math.inf, math.inf, False), (61, 62, True)):
        first.quiet(mine)
        other.quiet(theirs)
        until(functools.partial(told, first, theirs), "it is told", 5)
        verdict = first.turn()
        assert (verdict is not None) == over, (mine, theirs)
    assert verdict is not None
    assert verdict.code == 1
    assert verdict.line.startswith("all 2 processes have waited for each other for 60 s: one of them hangs, or ")
    other.end(verdict)


@pytest.mark.parametrize("value", ["abc", "0", "65535", "-1", "٣"])
def test_a_port_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PORT, value)
    with pytest.raises(TrainError, match=f"BYOC_PORT has value '{value}': expected a port from 1 to 65534"):
        port()


def test_an_interface_that_is_not_there_gives_way_to_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SDK v3's local mode names one, ethwe, that no container has."""
    assert usable("lo") == "lo"
    assert capsys.readouterr().err == ""
    assert usable("ethwe") == ""
    assert re.match(
        r"warning: resourceconfig.json: network_interface_name 'ethwe' is not an interface of this host \(it has .*lo",
        capsys.readouterr().err,
    )
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert "GLOO_SOCKET_IFNAME" not in Layout(HOSTS, HOSTS[0], "", 0).environment(0, tmp_path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--device cpu", "cpu"),
        ("--epochs 3 --device=cpu", "cpu"),
        ("--device=cuda --device CPU", "cpu"),  # the last one counts, as where all are read
        ("--batch_size=4 --device=cpu", "cpu"),
        ("--unknown 3 --device=cpu --lr x", "cpu"),  # told later, in a process that has a failure file
        ("--device", "auto"),
        ("--help", "auto"),
        ("", "auto"),
    ],
)
def test_the_device_is_read_however_it_is_written(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hyperparameters.device(words.split()) == expected
    monkeypatch.setattr("container_train.distributed.layout.gpus", lambda: 4)
    assert Layout.of(SageMakerPaths(tmp_path), words.split()).size == (1 if expected == "cpu" else 4)


def test_a_host_that_fails_before_the_first_is_there_says_why_and_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PORT, str(free_port()))  # where nobody listens
    other = launch.Other(SECOND)
    other.hear(1, 1, "the weights are not there")
    assert other.turn() is None
    monkeypatch.setattr(launch, "ALONE_SECONDS", 0.0)
    assert other.turn() == Verdict(1, "the weights are not there")


def test_strangers_are_passed_over(first: launch.First) -> None:
    other = launch.Other(SECOND)
    other.turn()
    until(lambda: known(first, HOSTS[1]), "the other host", 5)
    strangers = [socket.create_connection((HOSTS[0], port())) for _ in range(5)]
    name = json.dumps({"host": HOSTS[1]}).encode()
    for stranger, words in zip(
        strangers,
        (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0" * (2 * LONGEST),
            name + b"\n",
            b'[1]\n"x"\n{"ended": 1}\n',
            b"[" * 200_000 + b"\n",
        ),
        strict=True,
    ):
        stranger.settimeout(0.2)
        with contextlib.suppress(OSError):
            stranger.sendall(words)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert first.turn() is None
    for stranger in strangers:
        stranger.close()
    until(lambda: first.turn() is None and not first.unknown, "the strangers gone", 5)
    assert list(first.links) == [HOSTS[1]]
    other.end(Verdict(0))


def test_a_process_that_works_and_gets_no_further_is_named(tmp_path: Path) -> None:
    ranks = Ranks(FIRST, tmp_path)
    file = pulse.path(tmp_path, 0)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            ranks.running[0], ranks.watched[0] = process, pulse.Watch(file)
            assert ranks.still(60) == []
            time.sleep(0.2)
            ((rank, code, line),) = ranks.still(0.1)
            assert (rank, code) == (0, 1)
            assert line.startswith("process 0 of 2, host 127.0.0.1 has got no further for 0 s: ")
            assert ranks.quiet() >= 0.1
            file.write_text("waits")  # for others: they are to blame, or all
            assert ranks.still(0) == []
            file.write_text("alone")
            assert (ranks.still(0), ranks.quiet()) == ([], 0)
        finally:
            ranks.kill()
    assert ranks.ended()[0][0] == 0
    assert ranks.quiet() == math.inf


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.STILL, value)
    with pytest.raises(TrainError, match=f"BYOC_STILL_SECONDS has value '{value}': expected seconds above 0"):
        launch.still_seconds()


def test_a_host_that_is_waited_for_is_named_once_and_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("container_train.distributed.launch.time.monotonic", lambda: now)
    waiting = launch.Waiting()
    now += launch.SAY_SECONDS - 1
    assert waiting.look("algo-2") is None
    assert capsys.readouterr().err == ""
    now += 2
    assert waiting.look("algo-2") is None
    assert waiting.look("algo-2") is None
    assert capsys.readouterr().err == "waiting for host algo-2, for at most 300 s\n"
    now += launch.START_SECONDS
    verdict = waiting.look("algo-2")
    assert verdict is not None
    assert (verdict.code, verdict.line) == (1, "host algo-2 did not come within 300 s: see its log")


def test_processes_find_the_packages_wherever_they_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    environment = Layout(("a",), "a", "", 2).environment(0, tmp_path)
    program = "import sys; sys.path.pop(0); import container_train, container_serve"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
