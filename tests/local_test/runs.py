"""Calls of the scripts of local_test/, as a user makes them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "local_test" / "run.sh"
SECONDS = 900


def call(*arguments: object, program: Path = RUN) -> subprocess.CompletedProcess[str]:
    """Both streams in stdout, as on a terminal."""
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def mentioning(text: str) -> list[psutil.Process]:
    """Processes with `text` in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(text in word for word in words):
            found.append(process)
    return found
