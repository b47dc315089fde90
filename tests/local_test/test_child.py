"""All that a run starts ends with it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_test.child import Child
from tests.conftest import Patch
from tests.local_test.runs import until

# Starts a grandchild in a session of its own, as the training toolkit does, and ignores SIGTERM where asked.
PARENT = """
import signal, subprocess, sys, time
if sys.argv[1] == "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def start(tmp_path: Path, code: str, *arguments: str, **environment: str) -> Child:
    command = [sys.executable, "-c", code, *arguments]
    return Child(command, tmp_path / "log", environment={**os.environ, **environment}, echo=False)


def grandchild_of(child: Child) -> int:
    until(lambda: child.tail().strip().isdigit())
    return int(child.tail())


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("manner", ["willing", "stubborn"])
def test_stop_leaves_no_process(tmp_path: Path, manner: str) -> None:
    child = start(tmp_path, PARENT, manner)
    grandchild = grandchild_of(child)
    child.stop(0.5)
    assert child.ended() == 128 + (signal.SIGKILL if manner == "stubborn" else signal.SIGTERM)
    until(lambda: gone(grandchild))
    child.stop(0.5)


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["killed", "waited for"])
def test_what_a_killed_program_left_in_its_tree_has_ended(tmp_path: Path, monkeypatch: Patch, seconds: float) -> None:
    monkeypatch.setattr("local_test.child.LEFT_SECONDS", seconds)
    last = "600" if not seconds else "2"  # seconds that the grandchild has still to do
    code = PARENT.replace('time.sleep(600)"], s', f'time.sleep({last})"], s')
    child = start(tmp_path, code, "willing", SAGEMAKER_BASE_DIR=str(tmp_path))
    grandchild = grandchild_of(child)
    child.process.kill()
    assert child.wait() == 128 + signal.SIGKILL
    until(lambda: gone(grandchild), 0.5 if seconds else 5)


def test_the_exit_code_and_the_last_lines_are_kept(tmp_path: Path) -> None:
    child = start(tmp_path, "import sys; [print(n) for n in range(100)]; sys.exit(7)")
    assert child.wait() == 7
    assert child.tail().split() == [str(n) for n in range(80, 100)]
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(100)]


def test_a_full_disk_ends_the_log_and_not_the_program(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    child = start(tmp_path, "[print(n) for n in range(100_000)]")
    assert child.wait() == 0
    assert child.tail().split()[-1] == "99999"


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from local_test.child import Child\n"
        "child = Child([sys.executable, '-c', 'import time; time.sleep(600)'], Path(sys.argv[1]) / 'log',"
        " environment=os.environ, echo=False)\n"
        "print(child.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    until(lambda: gone(pid))
