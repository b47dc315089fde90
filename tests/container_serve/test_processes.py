"""The end of everything that a server has started."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import subprocess, sys, psutil
from container_serve import processes

processes.adopt_orphans()
# One child that stays, and one that has left a process in another session.
subprocess.Popen(["sleep", "60"])
subprocess.run(["sh", "-c", "setsid sleep 60 & echo $!"], stdout=subprocess.DEVNULL)
while [each.name() for each in psutil.Process().children()] != ["sleep", "sleep"]:
    pass
processes.kill_descendants()
print(psutil.Process().children(recursive=True))
"""


def test_every_process_below_is_ended_whatever_its_session() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
