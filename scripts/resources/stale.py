"""Containers, networks and folders of local mode, and their removal after a call was killed.

A call works in a folder and holds a lock on a file in it, which the kernel lets go with the call's process. Containers
and networks bear that folder as a label. Those of another machine or user are left alone.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.console.command import progress

JOB = "byoc.local-job"
OWNER = "byoc.local-owner"
FOLDER = "byoc.local-folder"
FILE = ".lock"  # in a folder


def me() -> str:
    """Return this machine and user: others' locks and folders cannot be seen from here."""
    return f"{socket.gethostname()} {os.getuid()}"


@contextlib.contextmanager
def folder(beside: Path, prefix: str = "byoc-") -> Iterator[Path]:
    """An empty folder in `beside`, gone afterwards: with this call, or with the next one that prunes."""
    beside.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=beside)).resolve()
    with (made / f"{FILE}.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (made / f"{FILE}.new").rename(made / FILE)  # never there without being locked
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if made.exists():
                progress(f"{made} could not be removed: remove it yourself, as the owner of its files")


def is_dead(place: Path) -> bool:
    """Tell whether no call works in this folder of this user's any more; True too where it is gone."""
    try:
        with (place / FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return os.fstat(lock.fileno()).st_uid == os.getuid()
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def prune(client: Any, *places: Path) -> None:
    """Remove what dead calls have left: on docker-py's engine, and the folders in `places`. Says what in one line."""
    from docker.errors import APIError  # brings paramiko, for which --help need not wait

    mine = {"filters": {"label": f"{OWNER}={me()}"}}
    containers = client.containers.list(all=True, ignore_removed=True, **mine)
    networks = client.networks.list(**mine)
    held = [(one, one.labels[FOLDER], {"force": True, "v": True}, "container") for one in containers]
    held += [(one, one.attrs["Labels"][FOLDER], {}, "network") for one in networks]
    held = [each for each in held if is_dead(Path(each[1]))]
    folders = [Path(each[1]) for each in held]
    folders += [file.parent for place in places for file in place.glob(f"*byoc-*/{FILE}") if is_dead(file.parent)]
    removed = []
    for one, _, options, kind in held:  # containers first: a network that has some cannot be removed
        with contextlib.suppress(APIError):  # gone already, or not to be removed
            one.remove(**options)
            removed.append(f"{kind} {one.name}")
    for place in dict.fromkeys(folders):
        shutil.rmtree(place, ignore_errors=True)
        removed += [] if place.exists() else [f"folder {place}"]
    if removed:
        progress(f"removed what a killed call had left: {', '.join(removed)}")
