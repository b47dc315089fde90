"""The Python that the scripts run in. Standard library only: it is imported before there is any other."""

import builtins
import importlib.util
import os
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
VENVS = (ROOT / ".venv", ROOT / ".venv-cloud")  # the second has what the scripts need for AWS


def use(*packages: str) -> None:
    """Go on in `.venv` or `.venv-cloud` unless this Python has all `packages`; without them, end with how to make one.

    Within another program, such as a notebook's kernel, it must neither replace nor end the process: ImportError.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    others = [python for venv in VENVS if os.access(python := venv / "bin" / "python", os.X_OK)]
    how = "run local_test/setup.sh (5 GB) or local_test/setup.sh cloud (0.3 GB), then call this again"
    if sys._getframe(1).f_globals["__name__"] != "__main__" or hasattr(builtins, "__IPYTHON__"):
        if missing:
            raise ImportError(
                f"the package {missing[0]} is not here: use {others[0] if others else VENVS[0]} ({how})",
                name=missing[0],
            )
        return
    sys.excepthook = _uncaught
    if not missing:
        return
    if others and Path(sys.prefix) != VENVS[0] and others[0].parents[1] != Path(sys.prefix):
        os.execv(others[0], [str(others[0]), *sys.argv])
    program = Path(sys.argv[0])
    sys.exit(f"{program.name}: the package {missing[0]} is not here: {how}")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C in the seconds that imports take: nothing has begun, and where it came is of no use to anybody."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
