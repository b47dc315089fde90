"""What calls on this machine hold while they live, and its removal once one was killed and could not see to it.

Containers and networks bear labels, folders a file: whose they are. Only what belongs to a dead call of this user's is
removed; of a call on another machine, in another container or by another user nothing is known, and it is left alone.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.aws.errors import one_line
from scripts.console.command import progress
from scripts.images.docker import Docker

JOB = "byoc.local-job"
OWNER = "byoc.local-owner"
FOLDER = "byoc.local-folder"
FILE = ".owner"  # in a folder
COMPOSE_FILE = "docker-compose.yaml"  # the SDK's name for it
_PROC = Path("/proc")


def me() -> str:
    """This process, told from any other before and after; empty where there is no Linux to say it."""
    return owner(os.getpid())


def owner(process: int) -> str:
    """Machine, user, start of the system, space of process numbers, number, start: the number alone is used again."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""
    return f"{socket.gethostname()} {os.getuid()} {boot} {space} {process} {_start(process)}"


def is_dead(text: str) -> bool:
    """Whether this owner is known to have ended."""
    theirs, mine = text.split(" "), me().split(" ")
    if len(theirs) != len(mine) or len(mine) < 6 or theirs[:2] != mine[:2]:
        return False
    if theirs[2] != mine[2]:  # the machine has been started anew
        return True
    return theirs[3] == mine[3] and _start(int(theirs[4])) != theirs[5]


def process_of(text: str) -> str:
    """The number in an owner."""
    words = text.split(" ")
    return words[4] if len(words) == 6 else ""


@contextlib.contextmanager
def folder(beside: Path, prefix: str = "byoc-") -> Iterator[Path]:
    """An empty folder in `beside`, gone afterwards: with this call, or with the next one that sweeps."""
    beside.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=beside)).resolve()
    try:
        (made / FILE).write_text(me())
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if made.exists():
            progress(f"{made} could not be removed: remove it yourself, as the owner of its files")


def sweep(docker: Docker, *places: Path) -> None:
    """Remove what dead calls have left: on the engine, and the folders in `places`. Says what in one line."""
    held = _held(docker)
    folders = [Path(each.folder) for each in held if each.folder]
    folders += [file.parent for place in places for file in place.glob(f"*byoc-*/{FILE}")]
    folders = [each for each in dict.fromkeys(folders) if is_dead(_owner_of(each))]
    removed, kept = [], []
    for process in _composes(folders):
        # It would make and start containers again; asked to end, it would wait for them.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            removed.append(f"Compose's process {process}")
            held = _held(docker)
    for each in held:
        gone = docker.call(*each.removal, each.id)
        if gone.returncode == 0:
            removed.append(f"{each.kind} {each.name}")
        elif "no such" not in gone.stderr.lower() and "already in progress" not in gone.stderr:
            kept.append(f"{each.kind} {each.name} ({one_line(gone.stderr)})")
    for place in folders:
        shutil.rmtree(place, ignore_errors=True)
        (kept if place.exists() else removed).append(f"folder {place}")
    if removed:
        progress(f"removed what a killed call had left: {', '.join(removed)}")
    if kept:
        progress(f"left by a killed call, and not to be removed: {', '.join(kept)}")


@dataclass(frozen=True)
class _Held:
    """A container or a network of a dead owner."""

    kind: str
    id: str
    name: str
    folder: str

    @property
    def removal(self) -> tuple[str, ...]:
        return ("rm", "--force", "--volumes") if self.kind == "container" else ("network", "rm")


def _held(docker: Docker) -> list[_Held]:
    """Containers first: a network that has some cannot be removed."""
    found = []
    for kind, listing, name in (("container", ("ps", "--all"), "Names"), ("network", ("network", "ls"), "Name")):
        columns = f'{{{{.ID}}}}\t{{{{.{name}}}}}\t{{{{.Label "{OWNER}"}}}}\t{{{{.Label "{FOLDER}"}}}}'
        listed = docker.call(*listing, "--no-trunc", "--filter", f"label={OWNER}", "--format", columns)
        for line in listed.stdout.splitlines():
            number, called, whose, place = line.split("\t", 3)
            if is_dead(whose):
                found.append(_Held(kind, number, called, place))
    return found


def _composes(folders: list[Path]) -> list[int]:
    """The processes of Compose, of this user's, that work in these folders."""
    found = []
    for each in _PROC.glob("[0-9]*/cmdline") if folders else ():
        with contextlib.suppress(OSError):
            words = each.read_bytes().decode(errors="replace").split("\0")
            files = [Path(after) for word, after in itertools.pairwise(words) if word == "-f"]
            ours = any(file.name == COMPOSE_FILE and place in file.parents for file in files for place in folders)
            if ours and each.stat().st_uid == os.getuid():
                found.append(int(each.parent.name))
    return found


def _owner_of(place: Path) -> str:
    try:
        return (place / FILE).read_text() if place.stat().st_uid == os.getuid() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _start(process: int) -> str:
    """In ticks since the start of the system; empty for one that has ended."""
    try:
        # The name, in parentheses, may hold anything.
        words = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if words[0] in "ZX" else words[19]
