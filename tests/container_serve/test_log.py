"""The log's format, and what is kept out of it."""

import logging
from collections.abc import Iterator

import pytest

from container_serve import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # pytest's own, which would be closed
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_record_is_one_line_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(logging.INFO)
    try:
        raise RuntimeError("no good")
    except RuntimeError:
        logging.getLogger("mine").exception("it failed")
    (line,) = capfd.readouterr().out.splitlines()
    assert " ERROR mine: it failed | Traceback" in line
    assert line.endswith("| RuntimeError: no good")


@pytest.mark.parametrize(
    ("level", "own", "server"),
    [(10, "debug", "debug"), (20, "info", "warn"), (30, "warn", "warn"), (50, "fatal", "fatal")],
)
def test_the_java_server_has_the_same_level(level: int, own: str, server: str) -> None:
    assert log.log4j_options(level)[:2] == [f"-Dbyoc.log.own={own}", f"-Dbyoc.log.server={server}"]
