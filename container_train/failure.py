"""The first line of the failure file for what the program did not foresee: what was wrong, where, what to do."""

import errno
import re

NO_SPACE = "no space left on the disk: use a larger volume (scripts/train.py --volume-size), or less data"
NO_MEMORY = "use a smaller batch-size, fewer workers, or an instance with more memory"


def reason(error: BaseException) -> str:
    """One line."""
    words = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{NO_SPACE}{_file(error)}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return f"{error.filename} cannot be written or read ({error.strerror}): give the job's user the right to"
    if "No space left on device" in words:
        return f"{NO_SPACE} ({words[:200]})"
    gpu = re.search(r"(?i)cuda.*out of memory|(cublas|cudnn)_status_alloc_failed", words)
    if gpu or isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in words:
        what = "the GPU's memory" if gpu else "the memory"
        return f"{what} is used up: {NO_MEMORY} ({words[:300] or kind})"
    if "DataLoader worker" in words and "Caught " not in words:
        return (
            f"a process that decodes pictures ended unexpectedly: {NO_MEMORY}; workers 0 does without ({words[:200]})"
        )
    return f"{kind}: {words or 'no message'}"


def of_requirements(log: str) -> str:
    """The reason why pip could not install a requirements.txt, from its log; one line."""
    errors = re.findall(r"ERROR: (.+)", log) or ["see the log"]
    what = errors[-1].strip()
    if missing := re.search(r"No matching distribution found for (\S+)", what):
        offline = re.search(r"connection broken by|: connection error: ", log)
        what = f"no network, {missing[1]}" if offline else f"no {missing[1]} was found for this Python"
    return f"requirements.txt could not be installed: {what}; put the packages into the image"


def _file(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""
