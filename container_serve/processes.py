"""Processes that end together, on Linux."""

import ctypes
import os
import signal
import time
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; `parent` is the process it belongs to.

    A parent that ended before this call is noticed by its id.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be waited for."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forbid_more_privileges() -> None:
    """No program that is started from here on gets more rights than this one, setuid or not."""
    _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def reap_orphans(but: int) -> None:
    """Collect all children that ended, except the one with the process id `but`, whose exit status is wanted."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == but:
            return
        os.waitpid(ended.si_pid, 0)


def kill_descendants(seconds: float = 5) -> None:
    """End every process below this one at once and wait until none is left, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (below := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in below:
            with suppress(psutil.Error):  # it has ended meanwhile
                process.kill()
        reap_orphans(but=0)
        time.sleep(0.01)
