import signal

import pytest

from container_train.errors import Stopped, TrainError
from container_train.signals import StopFlag, wait_for_host


def test_a_host_that_is_waited_for_is_named_once_and_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, stop = 100.0, StopFlag()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    wait_for_host("algo-2", lambda: now > 108, stop)
    assert capsys.readouterr().err == ""
    with pytest.raises(TrainError, match=r"host algo-2 did not come within 300 s: see .*, and its log; hint"):
        wait_for_host("algo-2", lambda: False, stop, "; hint")
    assert capsys.readouterr().err == "waiting for host algo-2, for at most 300 s\n"
    stop.asked = True
    with pytest.raises(Stopped, match="while host algo-2 was waited for; nothing is lost"):
        wait_for_host("algo-2", lambda: False, stop)


def test_a_stop_ends_work_that_need_not_be_kept_at_once() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = StopFlag().install()
        with pytest.raises(Stopped, match="in export"), stop.at_once("in export"):
            signal.raise_signal(signal.SIGTERM)
        assert stop.asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
