"""The Python that the scripts run in. Standard library only: it is imported before there is any other."""

import builtins
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
# Of the two, the one that has more: what runs here, or only what AWS is asked with.
VENVS = (ROOT / ".venv", ROOT / ".venv-cloud")
HOW = "run `local_test/setup.sh cloud` (400 MB, for AWS) or `local_test/setup.sh` (5 GB, for all), then call this again"


def use(*packages: str) -> None:
    """Go on in `.venv` or `.venv-cloud` unless this Python has all `packages`; without both, say how to make them.

    Within another program, such as a notebook's kernel, it must neither replace nor end the process: ImportError.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if sys._getframe(1).f_globals["__name__"] != "__main__" or hasattr(builtins, "__IPYTHON__"):
        if missing:
            raise ImportError(f"the package {missing[0]} is not installed in {sys.prefix}: {HOW}", name=missing[0])
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    if not missing:
        return
    # Never back to the one that this runs in, nor to one that it came from.
    left = VENVS[: VENVS.index(Path(sys.prefix))] if Path(sys.prefix) in VENVS else VENVS
    for python in (venv / "bin" / "python" for venv in left):
        if os.access(python, os.X_OK):
            os.execv(python, [str(python), *sys.argv])
    sys.exit(f"{Path(sys.argv[0]).name}: the package {missing[0]} is not installed: {HOW}")


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Ctrl-C in the seconds that imports take: nothing has begun, and an exception may get lost in an import."""
    os.write(2, f"{Path(sys.argv[0]).name}: interrupted\n".encode())
    os._exit(128 + signal.SIGINT)
