"""The rights of a server that was started as root, as the platform starts containers: it drops them at once."""

import logging
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from container_serve import processes
from container_serve.errors import ServeError
from container_serve.scratch import run_directory

LOG = logging.getLogger("server")
NOBODY = "nobody"  # in the container images; elsewhere the server stays who started it
ROOT = "root"  # as the user's name: stay what you are
SETGID_AND_SETUID = 1 << 6 | 1 << 7  # capabilities


class User(NamedTuple):
    """Whom the server becomes."""

    uid: int
    gid: int


def find(name: str | None) -> User | None:
    """The user of that name or number; None where the process stays who it is. Raises ServeError."""
    if not name or name in (ROOT, "0") or os.geteuid() != 0:
        return None
    effective = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split(None, 1)[0], 16)
    if effective & SETGID_AND_SETUID != SETGID_AND_SETUID:  # docker run --cap-drop ALL
        # What is left of root then owns root's files, and that is all.
        LOG.warning("stays root, whom the container allows nothing; docker run --user %s avoids that", name)
        return None
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():
            return User(int(name), int(name))
        raise ServeError(f"BYOC_USER: got {name!r}, expected a user's name or number, or {ROOT}") from None
    return User(found.pw_uid, found.pw_gid)


@contextmanager
def dropped(user: User | None, model: Path | None) -> Iterator[Path | None]:
    """From here on the process is `user`, for good; the folder that it finds the model in.

    That is `model` itself, or a copy where that is for root alone: the platform and its tools unpack artifacts as root,
    some of them into folders that nobody else may enter. Raises ServeError.
    """
    with ExitStack() as stack:
        if user is not None:
            os.setgroups([])
            if model is not None and not _may_read(user, model):
                model = _copy(user, model, stack.enter_context(run_directory()))
            os.setgid(user.gid)
            os.setuid(user.uid)
            os.environ["HOME"] = tempfile.gettempdir()  # root's own home is closed to it
        processes.forbid_more_privileges()
        yield model


def _may_read(user: User, model: Path) -> bool:
    """Tell whether the user may read everything in the folder, by becoming this user for a while."""
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        return all(
            os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK, effective_ids=True)
            for path in (model, *model.rglob("*"))
            if path.exists()
        )
    except OSError:
        return False
    finally:
        os.seteuid(0)
        os.setegid(0)


def _copy(user: User, model: Path, folder: Path) -> Path:
    """Copy `model` into a folder, which becomes the user's."""
    try:
        shutil.copytree(model, folder / "model", symlinks=True)
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o400)
            os.chown(path, *user, follow_symlinks=False)
    except OSError as error:
        reason = error.strerror or str(error.args[0][0][2])  # shutil.Error: a list of (from, to, why)
        raise ServeError(
            f"{model}: the user {user.uid}, as whom the server runs, may not read it, and it cannot be copied to"
            f" {folder.parent} ({reason}); make it readable (chmod -R a+rX), or set BYOC_USER={ROOT}"
        ) from None
    LOG.info("%s is for root alone: the server uses a copy of its own", model)
    return folder / "model"
