"""A program that a run starts: its output, its end, and that nothing of it stays."""

import collections
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

STOP_SECONDS = 30.0  # between SIGTERM and SIGKILL: what the platform gives a serving container
LEFT_SECONDS = 10.0  # for what a killed program leaves: its watcher still writes a report
TREE = "SAGEMAKER_BASE_DIR"
TAIL_LINES = 20
_PR_SET_PDEATHSIG = 1


class Child:
    """A process in a session of its own; its output goes to `log`, and to this program's where `echo` is set."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str],
        echo: bool,
        remove: Callable[[], object] = lambda: None,
    ) -> None:
        """`remove`: called when it has been stopped, for what is not its child."""
        self.log, self._remove, self._tree, self._began = log, remove, environment.get(TREE), time.time()
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        parent = os.getpid()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=log.parent,
            # Ctrl-C reaches it through `stop` only, which lets it end in order.
            start_new_session=True,
            preexec_fn=lambda: _end_with_parent(parent),
        )
        self._reader = threading.Thread(target=self._read, args=(echo,), daemon=True)
        self._reader.start()

    def _read(self, echo: bool) -> None:
        assert self.process.stdout is not None
        with contextlib.ExitStack() as stack:
            file = None
            with contextlib.suppress(OSError):
                file = stack.enter_context(self.log.open("ab", buffering=0))
            for line in self.process.stdout:
                self._tail.append(line.decode(errors="replace").rstrip())
                # A full disk: the program says so itself, and must not wait for a reader that has ended.
                with contextlib.suppress(OSError):
                    if file:
                        file.write(line)
                with contextlib.suppress(OSError):
                    if echo:
                        _echo(line)

    def wait(self) -> int:
        """The exit code as a shell gives it, after all output has been read."""
        code = self.process.wait()
        if code < 0 and self._tree:
            self._end_left()
        # Something it left running may hold the pipe open: that must not hold us.
        self._reader.join(timeout=5)
        return 128 - code if code < 0 else code

    def _end_left(self) -> None:
        """Wait for what a killed program left at work in its tree, which is nobody's child any more; then kill it."""
        found = psutil.process_iter(["environ", "create_time"])
        left = [
            process
            for process in found
            if (process.info["environ"] or {}).get(TREE) == self._tree and process.info["create_time"] > self._began - 1
        ]
        deadline = time.monotonic() + LEFT_SECONDS
        while (left := [process for process in left if _works(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def ended(self) -> int | None:
        return None if self.process.poll() is None else self.wait()

    def tail(self) -> str:
        return "\n".join(self._tail)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL after `seconds`, to it and all that it started. May be called twice."""
        family = self._family()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        for member in {*family, *self._family()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.wait()
        self._remove()

    def _family(self) -> list[psutil.Process]:
        """It and its descendants, found through psutil because some of them have sessions of their own."""
        try:
            process = psutil.Process(self.process.pid)
            return [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            return []


def _works(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _echo(line: bytes) -> None:
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    else:  # a notebook's
        print(line.decode(errors="replace"), end="", flush=True)


def _end_with_parent(parent: int) -> None:
    """Linux: SIGTERM when this program is killed, which could not stop its children then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
