"""The rights of a server that was started as root, as the platform starts containers: it gives them away at once."""

import ctypes
import logging
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from container_serve import configuration
from container_serve.errors import ServeError
from container_serve.scratch import private_directory

LOG = logging.getLogger("server")
NOBODY = "nobody"  # in the images; elsewhere the server stays who started it
ROOT = "root"  # as the user's name: stay what you are
PR_SET_NO_NEW_PRIVS = 38
SETGID_AND_SETUID = 1 << 6 | 1 << 7  # capabilities
_LIBC = ctypes.CDLL(None, use_errno=True)


class UserError(ServeError):
    """The server cannot become the user that it should; `str()` is one line."""


@dataclass(frozen=True)
class User:
    """Whom the server becomes."""

    uid: int
    gid: int


def find(name: str | None) -> User | None:
    """The user of that name or number; None where the process stays who it is. Raises UserError."""
    if not name or name in (ROOT, "0") or os.geteuid() != 0:
        return None
    if not _may_change():
        # What is left of root then owns root's files, and that is all.
        LOG.warning("stays root, whom the container allows nothing; docker run --user %s avoids that", name)
        return None
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():
            return User(int(name), int(name))
        raise UserError(f"BYOC_USER: got {name!r}, expected a user's name or number, or {ROOT}") from None
    return User(found.pw_uid, found.pw_gid)


@contextmanager
def given_up(user: User | None, model: Path | None) -> Iterator[Path | None]:
    """From here on the process is `user`, for good; the folder that it finds the model in.

    That is `model` itself, or a copy where that is for root alone: the platform and its tools unpack artifacts as root,
    some of them into folders that nobody else may enter. Raises UserError.
    """
    copied: Path | None = None
    try:
        if user is not None and model is not None and not _may_read(user, model):
            copied = _copy(user, model)
        if user is not None:
            _become(user)
            os.environ["HOME"] = tempfile.gettempdir()  # root's own home is closed to it
        # Whoever it is: no program that is started from here on gets more rights than this one, setuid or not.
        _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        yield copied / "model" if copied else model
    finally:
        if copied is not None:
            shutil.rmtree(copied, ignore_errors=True)


def _become(user: User) -> None:
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)


def check_programs(user: User | None) -> None:
    """Raise UserError where this process, which is `user` by now, cannot start the programs of the server."""
    if user is None:
        return
    for path in (sys.executable, configuration.java(), __file__):
        if not os.access(path, os.R_OK if path == __file__ else os.X_OK):
            raise UserError(
                f"BYOC_USER: the user {user.uid} cannot run {os.path.realpath(path)} (Permission denied);"
                f" install it where that user may, or set BYOC_USER={ROOT}"
            )


def _may_change() -> bool:
    """Whether the container lets root become another user; `--cap-drop ALL` takes away this right, too."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split(None, 1)[0], 16)
    return effective & SETGID_AND_SETUID == SETGID_AND_SETUID


def _may_read(user: User, model: Path) -> bool:
    """Whether the user may read everything in the folder, found out by a child that becomes this user."""
    child = os.fork()
    if child == 0:
        try:
            _become(user)
            for folder, _, names in os.walk(model, onerror=_raise):
                for path in (Path(folder, name) for name in names):
                    if path.is_file():  # a pipe would be waited for
                        path.open("rb").close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _raise(error: OSError) -> None:
    raise error


def _copy(user: User, model: Path) -> Path:
    """A private folder of the user's with `model` in it."""
    folder = private_directory("byoc-model-")
    try:
        shutil.copytree(model, folder / "model", symlinks=True)
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o400)
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or str(error.args[0][0][2])  # shutil.Error: a list of (from, to, why)
        raise UserError(
            f"{model}: the user {user.uid}, as whom the server runs, may not read it, and it cannot be copied to"
            f" {folder.parent} ({reason}); make it readable (chmod -R a+rX), or set BYOC_USER={ROOT}"
        ) from None
    LOG.info("%s is for root alone: the server uses a copy of its own", model)
    return folder
