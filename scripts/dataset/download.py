"""Download one large file so that a cut connection costs only what was on the wire."""

import fcntl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

from scripts.dataset.folders import DataError
from scripts.dataset.progress import Progress

ATTEMPTS = 6
TIMEOUT_SECONDS = (10, 60)  # to connect, and between two pieces
PIECE_BYTES = 1 << 20


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
    with part.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another call is downloading {target}: wait for it") from None
        if target.exists():  # another call has just ended
            part.unlink()
            return
        try:
            _fetch(url, part, pause)
        finally:
            if part.stat().st_size == 0:  # nothing to go on with
                part.unlink()
        part.replace(target)
        part.with_name(f"{part.name}.tag").unlink(missing_ok=True)


def _fetch(url: str, part: Path, pause: Callable[[float], None]) -> None:
    """All of `url` in `part`, in as many attempts as make progress."""
    tag = part.with_name(f"{part.name}.tag")
    failures = 0
    while True:
        before = part.stat().st_size
        try:
            _attempt(url, part, tag)
            return
        except (
            _Unfinished,
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            arrived = part.stat().st_size
            failures = 1 if arrived > before else failures + 1
            reason = _reason(error)
            if failures >= ATTEMPTS:
                raise DataError(
                    f"{url} could not be downloaded ({reason}); {arrived} bytes are kept in {part}: call again to go on"
                ) from None
            wait = min(2.0 ** (failures - 1), 30.0)
            print(f"{part.stem}: {reason}; trying again in {wait:.0f} s", file=sys.stderr, flush=True)
            pause(wait)
        except requests.RequestException as error:
            raise DataError(f"{url} could not be downloaded: {_reason(error)}") from None


def _attempt(url: str, part: Path, tag: Path) -> None:
    done = part.stat().st_size
    # Compression on the way would make byte ranges meaningless.
    headers = {"Accept-Encoding": "identity"}
    known = tag.read_text() if tag.exists() else ""
    if done and known:
        headers |= {"Range": f"bytes={done}-", "If-Range": known}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == 416:  # nothing is left, or the file is another one: from the beginning
            part.write_bytes(b"")
            raise _Unfinished("the server has no such range")
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise _Unfinished(f"the server answered {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise DataError(f"{url}: the server answered {answer.status_code} {answer.reason}")
        resumed = answer.status_code == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.write_bytes(b"")
            raise _Unfinished("the server sent another range than asked for")
        if not resumed:
            done = 0
            tag.unlink(missing_ok=True)
            # A weak tag cannot be used with If-Range (RFC 9110, 13.1.5).
            etag = answer.headers.get("ETag", "")
            fresh = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
            part.write_bytes(b"")
            if fresh:
                tag.write_text(fresh)
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        try:
            with Progress(url.rpartition("/")[2], total, done) as progress, part.open("ab") as file:
                # iter_content would lose the piece during which the connection breaks.
                while piece := answer.raw.read1(PIECE_BYTES, decode_content=False):
                    file.write(piece)
                    done += len(piece)
                    progress.add(len(piece))
        except urllib3.exceptions.HTTPError as error:
            raise _Unfinished(f"the connection ended: {_reason(error)}") from None
    if total is not None and done != total:
        raise _Unfinished(f"the connection ended at {done} of {total} bytes")


def _reason(error: Exception) -> str:
    """requests nests three exceptions into one text: keep what the innermost says."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        inner = error.__cause__ or error.__context__
        assert isinstance(inner, Exception)
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
