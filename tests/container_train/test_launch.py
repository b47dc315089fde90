"""What a launcher says while it waits for another host. (Whole jobs: tests/faults/test_hosts.py.)"""

import pytest

from container_train import launch


def test_a_host_that_is_waited_for_is_named_once_and_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("container_train.launch.time.monotonic", lambda: now)
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
