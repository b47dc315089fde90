import subprocess
import sys
import time
from pathlib import Path

import pytest

from container_train.monitoring.sidecar import Sidecar

SIDE = """
import os, sys
print("stop here", os.environ["OMP_NUM_THREADS"], *sys.argv[1:], flush=True)
word = sys.stdin.readline()
print("got", word.strip() or "nothing", flush=True)
if word.strip() == "end badly":
    print("first\\nit broke", file=sys.stderr)
    sys.exit(3)
if word.strip() == "end well":
    print("side: a part failed\\na warning of a library", file=sys.stderr)
"""
DEAF = "import time; time.sleep(60)"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "side.py").write_text(SIDE)
    (tmp_path / "deaf.py").write_text(DEAF)
    return "side"


def until(what: list[str], count: int) -> None:
    deadline = time.monotonic() + 60
    while len(what) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_it_is_told_to_end_and_is_heard(module: str, tmp_path: Path) -> None:
    heard: list[str] = []
    sidecar = Sidecar(module, ["a b"], tmp_path / "log", listener=heard.append)
    until(heard, 1)
    sidecar.end("completed")
    assert sidecar.wait(60) == ""
    until(heard, 2)
    assert heard == ["stop here 1 a b", "got end completed"]
    assert not (tmp_path / "log").exists()


def test_what_goes_wrong_is_told_in_its_own_words(module: str, tmp_path: Path) -> None:
    sidecar = Sidecar(module, [], tmp_path / "log", listener=lambda _: None)
    sidecar.end("badly")
    assert sidecar.wait(60) == "side ended with code 3: it broke"
    sidecar.end("again")  # it is gone already


def test_what_failed_in_one_that_ended_well_is_told(module: str, tmp_path: Path) -> None:
    sidecar = Sidecar(module, [], tmp_path / "log", listener=lambda _: None)
    sidecar.end("well")
    assert sidecar.wait(60) == "a part failed"


def test_one_that_does_not_end_is_killed(module: str, tmp_path: Path) -> None:
    sidecar = Sidecar("deaf", [], tmp_path / "log")
    sidecar.end()
    assert sidecar.wait(0.3) == "deaf did not end within 0.3 s and was killed"
    assert sidecar.process.poll() is not None


def test_the_end_of_this_process_is_heard_even_when_it_is_killed(module: str, tmp_path: Path) -> None:
    words = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from container_train.monitoring.sidecar import Sidecar\n"
        f"Sidecar('side', [], Path({str(tmp_path / 'log')!r})); time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", words], check=False)
    deadline = time.monotonic() + 60
    while "got nothing" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "got nothing" in (tmp_path / "log").read_text()
