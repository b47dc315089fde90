"""Download one large file so that a cut connection costs only what was on the wire."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from container_train.errors import DataError
from container_train.paths import locked
from scripts.console.command import progress

ATTEMPTS = 6
# curl's exit codes: the server answered with an error; the file is another one than the part is of, or has no ranges.
ANSWERED, NO_RANGE = 22, 33
PASSING = ("000", "408", "425", "429", "5")  # how statuses begin that are worth another attempt


def download(url: str, target: Path, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Fetch `url` into `target`, which appears only when it is complete.

    What has arrived is kept in TARGET.part, also when the program is ended; the next attempt, in this call or
    the next one, asks for the rest. If-Range makes a server send everything when its file has changed.
    Raises DataError after ATTEMPTS attempts without any progress, and while another call downloads the same.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part, tag = (target.with_name(f"{target.name}.part{ending}") for ending in ("", ".tag"))
    with locked(part, lambda: DataError(f"another call is downloading {target}: wait for it")):
        try:
            failures = 0
            while not target.exists():  # else another call has just ended
                before = part.stat().st_size
                if not (reason := _attempt(url, part, tag)):
                    part.replace(target)
                    tag.unlink(missing_ok=True)
                    return
                arrived = part.stat().st_size
                failures = 1 if arrived > before else failures + 1
                if failures >= ATTEMPTS:
                    kept = f"{arrived} bytes are kept in {part}: call again to resume"
                    raise DataError(f"{url} could not be downloaded ({reason}); {kept}")
                wait = min(2.0 ** (failures - 1), 30.0)
                progress(f"{target.name}: {reason}; trying again in {wait:.0f} s")
                pause(wait)
        finally:
            if part.exists() and part.stat().st_size == 0:  # nothing to go on with
                part.unlink()
                tag.unlink(missing_ok=True)


def _attempt(url: str, part: Path, tag: Path) -> str:
    """The reason why it is not complete, empty where it is. Raises DataError where another attempt is of no use."""
    known = tag.read_text().strip() if tag.exists() else ""
    if not known:
        part.write_bytes(b"")  # a part of what is not known
    command = ["curl", "--fail", "--location", "--show-error", "--connect-timeout", "10", "--speed-limit", "1"]
    command += ["--speed-time", "60", "--continue-at", "-", "--output", str(part), "--etag-save", str(tag)]
    command += ["--write-out", "%{http_code}", "--progress-bar" if sys.stderr.isatty() else "--silent"]
    if known:
        command += ["--header", f"If-Range: {known}"]
    done = subprocess.run(
        [*command, url], stdout=subprocess.PIPE, stderr=None if sys.stderr.isatty() else subprocess.PIPE, text=True
    )
    if not done.returncode:
        return ""
    if done.returncode == NO_RANGE or done.stdout == "416":
        tag.unlink(missing_ok=True)
    elif done.returncode == ANSWERED and not done.stdout.startswith(PASSING):
        raise DataError(f"{url}: the server answered {done.stdout}")
    return " ".join((done.stderr or f"curl ended with exit code {done.returncode}").split())
