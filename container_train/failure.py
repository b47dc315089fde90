"""The first line of the failure file for errors that nobody foresaw: what was wrong, where, what to do."""

import errno
import re
import signal
from pathlib import Path

NO_SPACE = "no space left on the disk: use a larger volume (scripts/train.py --volume-size), or less data"
NO_MEMORY = "use a smaller batch-size, fewer workers, or an instance with more memory"
KILLED = {  # the program's end by a signal, and the usual reason
    signal.SIGKILL: f"lack of memory: {NO_MEMORY}",
    signal.SIGSEGV: "an error in a library: try amp off, or another instance type",
    signal.SIGBUS: "lack of shared memory or disk: use fewer workers, or a larger volume",
}


def reason(error: BaseException) -> str:
    """Return one line for an exception of this program."""
    words = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE + (f" ({error.filename})" if error.filename else "")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return f"{error.filename} cannot be written or read ({error.strerror}): give the job's user the right to"
    if "No space left on device" in words:
        return f"{NO_SPACE} ({words[:200]})"
    gpu = re.search(r"(?i)cuda.*out of memory|(cublas|cudnn)_status_alloc_failed", words)
    if gpu or isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in words:
        what = "the GPU's memory" if gpu else "the memory"
        return f"{what} is used up: {NO_MEMORY} ({words[:300] or kind})"
    if "DataLoader worker" in words and "Caught " not in words:
        return f"a process that decodes images ended unexpectedly: {NO_MEMORY}; workers 0 uses none ({words[:200]})"
    return f"{kind}: {words or 'no message'}"


def of_toolkit(report: str, program: str, code: Path, pip_log: Path) -> str:
    """Return one line for a failure that the toolkit reported; empty if the report begins with a better one.

    `program` is the user's own in the folder `code`, or empty for the built-in one; `pip_log` is pip's, if it ran.
    """
    if found := re.match(r"ExecuteUserScriptError:\s+ExitCode (-?\d+)", report):
        number = abs(int(found[1])) % 128
        if program and ":" not in program and not (code / program).exists():  # otherwise it is a module
            return f"the program is {program!r} (sagemaker_program), but {code} has no such file"
        if program:
            return f"{program} ended with code {found[1]}: see its log"
        if number in KILLED:
            name, why = signal.Signals(number).name, KILLED[signal.Signals(number)]
            return f"the training program was killed by {name}, mostly for {why}"
    if program and report.startswith("InstallRequirementsError:"):
        return _of_requirements(pip_log.read_text(errors="replace") if pip_log.is_file() else "")
    if report.startswith("Framework Error:"):  # the reason follows a traceback
        lines = [line.strip() for line in report.strip().splitlines()]
        return ([line for line in lines[1:] if re.match(r"[\w.]+(Error|Exception): ", line)] or lines)[-1]
    return ""


def _of_requirements(log: str) -> str:
    errors = re.findall(r"ERROR: (.+)", log) or ["see the log"]
    what = errors[-1].strip()
    if missing := re.search(r"No matching distribution found for (\S+)", what):
        offline = re.search(r"connection broken by|: connection error: ", log)
        what = f"no network, {missing[1]}" if offline else f"no {missing[1]} was found for this Python"
    return f"requirements.txt could not be installed: {what}; put the packages into the image"
