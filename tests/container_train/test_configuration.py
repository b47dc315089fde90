"""What is looked at before the toolkit runs; tests/contract has the rest, with the toolkit."""

import socket

import pytest

from container_train import configuration
from container_train.errors import TrainError


def test_a_host_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str) -> str:
        asked.append(host)
        if asked.count("late") < 3 and host == "late":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return "127.0.0.1"

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    monkeypatch.setattr(configuration, "POLL_SECONDS", 0.0)
    configuration.wait_for_names(["here", "late"], lambda: False)
    assert asked == ["here", "late", "late", "late"]


@pytest.mark.parametrize("host", ["byoc.invalid", "a" * 64, ".."])
def test_a_host_that_never_comes_is_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "NAME_SECONDS", 0.0)
    with pytest.raises(TrainError, match=r"^the name of host \S+ is not known after 0 s: see whether"):
        configuration.wait_for_names(["localhost", host], lambda: False)
