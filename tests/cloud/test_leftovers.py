"""What killed calls of local mode leave, whose it is, and its removal."""

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.images.docker import Docker
from scripts.resources import leftovers
from tests.conftest import need
from tests.docker import engine

MINE = leftovers.me()
pytestmark = pytest.mark.skipif(not MINE, reason="no /proc here")


def changed(word: int, text: str) -> str:
    words = MINE.split(" ")
    words[word] = text
    return " ".join(words)


@pytest.fixture
def dead() -> str:
    """The owner that a process was, which has ended."""
    process = subprocess.Popen(["sleep", "60"])
    text = leftovers.owner(process.pid)
    assert not leftovers.is_dead(text)
    process.kill()
    deadline = time.monotonic() + 10
    while not leftovers.is_dead(text) and time.monotonic() < deadline:  # nobody has waited for it yet
        time.sleep(0.01)
    assert leftovers.is_dead(text)
    process.wait()
    return text


@pytest.mark.parametrize(
    ("text", "is_dead"),
    [
        (MINE, False),
        (changed(5, "1"), True),  # the number has been given anew
        (changed(2, "before"), True),  # the machine was started anew
        (changed(0, "elsewhere"), False),
        (changed(1, "12345"), False),
        (changed(3, "pid:[1]"), False),  # another container, whose numbers mean nothing here
        ("", False),
    ],
    ids=(
        "mine",
        "number given anew",
        "machine started anew",
        "other machine",
        "other user",
        "other container",
        "empty",
    ),
)
def test_who_is_known_to_be_dead(text: str, is_dead: bool) -> None:
    assert leftovers.is_dead(text) == is_dead


def test_a_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with leftovers.folder(tmp_path / "new") as made:
        assert (made / leftovers.FILE).read_text() == MINE
    assert list((tmp_path / "new").iterdir()) == []


def folder(place: Path, owner: str) -> Path:
    place.mkdir()
    (place / leftovers.FILE).write_text(owner)
    (place / "data").mkdir()
    (place / "data" / "picture.jpg").write_text("")
    return place


class Idle(Docker):
    """An engine that holds nothing."""

    def __init__(self) -> None: ...

    def call(self, *arguments: str, seconds: float = 0.0) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(arguments, 0, "", "")


def test_folders_of_dead_calls(tmp_path: Path, dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    gone = [folder(tmp_path / name, dead) for name in (".byoc-a", "byoc-sample-b")]
    kept = [folder(tmp_path / "byoc-c", MINE), folder(tmp_path / "byoc-d", ""), folder(tmp_path / "mine", dead)]
    leftovers.sweep(Idle(), tmp_path, tmp_path / "none")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("removed what a killed call had left: folder ")
    assert all(str(each) in line for each in gone)
    leftovers.sweep(Idle(), tmp_path)
    assert capsys.readouterr().err == ""


@pytest.fixture
def image() -> Iterator[str]:
    """An empty one, whose containers are made and never run."""
    need(engine.available(), "a Docker engine")
    tag = f"byoc-empty:{os.getpid()}"
    nothing = io.BytesIO()
    tarfile.open(fileobj=nothing, mode="w").close()
    subprocess.run(["docker", "import", "-", tag], input=nothing.getvalue(), check=True, capture_output=True)
    yield tag
    engine.docker("rmi", "--force", tag, check=False)


@pytest.mark.docker
def test_all_of_a_dead_call_and_nothing_of_a_living_one(
    image: str, tmp_path: Path, dead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made: dict[str, tuple[str, str, Path, subprocess.Popen[bytes]]] = {}
    for name, owner in (("dead", dead), ("living", MINE)):
        place = folder(tmp_path / f"byoc-{name}", owner)
        labels = [f"--label={leftovers.OWNER}={owner}", f"--label={leftovers.FOLDER}={place}"]
        container = engine.docker("create", *labels, image, "none").stdout.strip()
        network = engine.docker("network", "create", *labels, f"byoc-{name}-{os.getpid()}").stdout.strip()
        compose = [sys.executable, "-c", "import time; time.sleep(60)", "-f", f"{place}/tmp/{leftovers.COMPOSE_FILE}"]
        made[name] = (container, network, place, subprocess.Popen(compose))
    try:
        leftovers.sweep(Docker.find())
        line = next(line for line in capsys.readouterr().err.splitlines() if str(tmp_path) in line)
        for name, (container, network, place, process) in made.items():
            lives = name == "living"
            assert (engine.docker("inspect", container, check=False).returncode == 0) == lives
            assert (engine.docker("network", "inspect", network, check=False).returncode == 0) == lives
            assert place.exists() == lives
            assert (
                (str(place) in line) == (f"-{name}-{os.getpid()}" in line) == (str(process.pid) in line) == (not lives)
            )
            assert (process.poll() if lives else process.wait(60)) == (None if lives else -9)
    finally:
        for container, network, _, process in made.values():
            engine.docker("rm", "--force", container, check=False)
            engine.docker("network", "rm", network, check=False)
            process.kill()
            process.wait()
