"""A process beside the training: started without its imports, told to end over a pipe, and never left behind."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

WATCHER, SAMPLER = "container_train.debugger.watch", "container_train.profiler.sampler"
# One thread each: the cores are for the training.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Sidecar:
    """`python -m module arguments`; its standard error goes to `problems`, a file that is removed when it is empty.

    The end of its standard input tells it that this process is gone, however that ended.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], problems: Path, listener: Callable[[str], None] | None = None
    ) -> None:
        self.module, self.problems = module, problems
        # The packages are found from wherever the job runs.
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        problems.parent.mkdir(parents=True, exist_ok=True)
        with problems.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if listener else file, stderr=file,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
            )  # fmt: skip
        if listener is not None:
            threading.Thread(target=self._listen, args=(listener,), name=module, daemon=True).start()

    def _listen(self, listener: Callable[[str], None]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            listener(line.decode(errors="replace").rstrip("\n"))

    def end(self, word: str = "") -> None:
        """Say `end`, and why; does not wait."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone, or was told before
            self.process.stdin.write(f"end {word}".strip().encode() + b"\n")
            self.process.stdin.close()

    def wait(self, seconds: float) -> str:
        """Wait until it has ended, at most so long, then kill it; what went wrong, in words, or nothing.

        Of one that ended well that is its last line of the form `NAME: words`, NAME being the module's.
        """
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"{self.module} did not end within {seconds:g} s and was killed"
        words = self.problems.read_text(errors="replace").strip().splitlines() if self.problems.exists() else []
        if not words:
            self.problems.unlink(missing_ok=True)
        if code:
            return ": ".join([f"{self.module} ended with code {code}", *words[-1:]])
        name = self.module.rpartition(".")[2] + ": "  # other lines are warnings of libraries
        return next((line.removeprefix(name) for line in reversed(words) if line.startswith(name)), "")
