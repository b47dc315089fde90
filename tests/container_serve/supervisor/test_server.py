"""The supervisor."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_supervisor_starts_java_before_anything_large_is_imported() -> None:
    large = {"numpy", "PIL", "openvino", "sagemaker_inference", "mms"}
    program = f"import sys, container_serve.supervisor.server; print({large!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_signal_is_heard_at_whichever_moment_of_the_wait_it_comes() -> None:
    """One that came while the waiting thread held a lock which its handler wanted, too, hung the server for good."""
    code = """
import signal, sys
from container_serve.supervisor.server import Stop

def call(frame, event, argument):
    global left
    left -= 1
    if left == 0:
        signal.raise_signal(signal.SIGTERM)  # its handler runs before the next step

for step in range(1, 20):
    stop, left = Stop(), step
    sys.setprofile(call)
    stop.wait(0.01)
    sys.setprofile(None)
    signal.raise_signal(signal.SIGTERM)
    assert stop.wait(1) and stop.wait()
print("heard")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stdout == "heard\n", done.stderr
