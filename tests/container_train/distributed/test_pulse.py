"""What a process says of itself, and what is seen of it."""

import time
from pathlib import Path

import pytest

from container_train.distributed import pulse


@pytest.mark.timing
def test_what_is_said_is_seen(tmp_path: Path) -> None:
    watch = pulse.Watch(pulse.path(tmp_path, 3))
    assert watch.look()[0] == "works"  # it is starting
    pulse.start(watch.file)
    try:
        time.sleep(0.05)
        assert watch.look()[1] >= 0
        states: tuple[pulse.State, ...] = ("works", "waits", "works", "works")
        for state in states:
            time.sleep(0.1)
            before = watch.look()[1]
            pulse.beat(state)
            found, seconds = watch.look()
            assert found == state
            assert seconds < before
        with pulse.waiting():
            assert watch.look()[0] == "waits"
        assert watch.look()[0] == "works"
    finally:
        pulse.alone()
    assert watch.look()[0] == "alone"
    pulse.beat()  # says nothing any more
    assert watch.look()[0] == "alone"


def test_a_process_that_is_alone_writes_nothing(tmp_path: Path) -> None:
    with pulse.waiting():
        pulse.beat()
    assert list(tmp_path.iterdir()) == []
