"""Download one large file so that a cut connection costs only what was on the wire."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

from container_train.errors import DataError
from container_train.paths import locked
from scripts.dataset.progress import Progress

ATTEMPTS = 6
TIMEOUT_SECONDS = (10, 60)  # to connect, and between two pieces
PIECE_BYTES = 1 << 20
PASSING = (408, 425, 429)  # statuses that are worth another attempt, as those from 500 on


class _Unfinished(Exception):
    """The connection ended early, or the server could not answer now: worth another attempt."""


def download(url: str, target: Path, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Fetch `url` into `target`, which appears only when it is complete.

    What has arrived is kept in TARGET.part, also when the program is ended; the next attempt, in this call or
    the next one, asks for the rest with a Range header. If-Range makes a server send everything when its file
    has changed.
    Raises DataError after ATTEMPTS attempts without any progress, and while another call downloads the same.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with locked(part, lambda: DataError(f"another call is downloading {target}: wait for it")):
        try:
            if not target.exists():  # else another call has just ended
                _fetch(url, part, pause)
                part.replace(target)
                _tag(part).unlink(missing_ok=True)
        finally:
            if part.exists() and part.stat().st_size == 0:  # nothing to go on with
                part.unlink()


def _tag(part: Path) -> Path:
    """The file that keeps which version of the URL `part` is of."""
    return part.with_name(f"{part.name}.tag")


def _fetch(url: str, part: Path, pause: Callable[[float], None]) -> None:
    """All of `url` in `part`, in as many attempts as make progress."""
    failures = 0
    while True:
        before = part.stat().st_size
        try:
            return _attempt(url, part)
        except (_Unfinished, urllib3.exceptions.HTTPError, requests.ConnectionError, requests.Timeout) as error:
            reason = _reason(error)
        except requests.RequestException as error:
            raise DataError(f"{url} could not be downloaded: {_reason(error)}") from None
        arrived = part.stat().st_size
        failures = 1 if arrived > before else failures + 1
        if failures >= ATTEMPTS:
            raise DataError(
                f"{url} could not be downloaded ({reason}); {arrived} bytes are kept in {part}: call again to resume"
            )
        wait = min(2.0 ** (failures - 1), 30.0)
        print(f"{part.stem}: {reason}; trying again in {wait:.0f} s", file=sys.stderr, flush=True)
        pause(wait)


def _attempt(url: str, part: Path) -> None:
    done, tag = part.stat().st_size, _tag(part)
    headers = {"Accept-Encoding": "identity"}  # compression on the way would make byte ranges meaningless
    if done and tag.exists():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        status = answer.status_code
        if status in PASSING or status >= 500:
            raise _Unfinished(f"the server answered {status}")
        if status not in (200, 206, 416):
            raise DataError(f"{url}: the server answered {status} {answer.reason}")
        if status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.write_bytes(b"")
            tag.unlink(missing_ok=True)
            if status != 200:  # nothing is left, or the file is another one: from the beginning
                raise _Unfinished("the server has no such range")
            done = 0
            etag = answer.headers.get("ETag", "W/")
            # A weak tag cannot be used with If-Range (RFC 9110, 13.1.5).
            if fresh := answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag:
                tag.write_text(fresh)
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with Progress(url.rpartition("/")[2], total, done) as progress, part.open("ab") as file:
            # iter_content would lose the piece during which the connection breaks.
            while piece := answer.raw.read1(PIECE_BYTES, decode_content=False):
                file.write(piece)
                done += len(piece)
                progress.add(len(piece))
    if total is not None and done != total:
        raise _Unfinished(f"the connection ended at {done} of {total} bytes")


def _reason(error: Exception) -> str:
    """Return what the innermost of nested exceptions says: requests puts three into one text."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
