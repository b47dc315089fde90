"""Containers and networks of local mode, and their removal after a call was killed.

Their label names the folder in which their call works (container_serve/scratch.py). Those of another machine or user
are left alone.
"""

import contextlib
import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from container_serve.scratch import LOCK
from scripts.console.command import progress

JOB = "byoc.local-job"
OWNER = "byoc.local-owner"
FOLDER = "byoc.local-folder"


def me() -> str:
    """Return this machine and user: others' locks and folders cannot be seen from here."""
    return f"{socket.gethostname()} {os.getuid()}"


def is_dead(place: Path) -> bool:
    """Tell whether no call works in this folder of this user's any more; True too where it is gone."""
    try:
        with (place / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return os.fstat(lock.fileno()).st_uid == os.getuid()
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def prune(client: Any) -> None:
    """Remove what dead calls have left on docker-py's engine. Says what in one line."""
    from docker.errors import APIError  # brings paramiko, for which --help need not wait

    mine = {"filters": {"label": f"{OWNER}={me()}"}}
    containers = client.containers.list(all=True, ignore_removed=True, **mine)
    networks = client.networks.list(**mine)
    held = [(one, one.labels[FOLDER], {"force": True, "v": True}, "container") for one in containers]
    held += [(one, one.attrs["Labels"][FOLDER], {}, "network") for one in networks]
    held = [each for each in held if is_dead(Path(each[1]))]
    removed = []
    for one, _, options, kind in held:  # containers first: a network that has some cannot be removed
        with contextlib.suppress(APIError):  # gone already, or not to be removed
            one.remove(**options)
            removed.append(f"{kind} {one.name}")
    for _, place, _, _ in held:
        shutil.rmtree(place, ignore_errors=True)
    if removed:
        progress(f"removed what a killed call had left: {', '.join(removed)}")
