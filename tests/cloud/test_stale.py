"""Things that killed calls of local mode leave, their owner, and their removal."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_serve import scratch
from scripts.images.engine import connect
from scripts.resources import stale
from tests.conftest import Capture, need
from tests.docker import engine

HOLD = "import sys, time; from pathlib import Path; from container_serve import scratch\n"
HOLD += "with scratch.folder(beside=Path(sys.argv[1])) as made: print(made, flush=True); time.sleep(60)"


def dead(place: Path) -> Path:
    """A folder that a killed call has left."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    made = Path(process.stdout.readline().strip())
    assert not stale.is_dead(made)
    process.kill()
    process.wait()
    assert stale.is_dead(made)
    return made


def test_a_folder_is_gone_afterwards(tmp_path: Path) -> None:
    left = dead(tmp_path)
    with scratch.folder(beside=tmp_path) as made:
        assert [path.name for path in made.iterdir()] == [scratch.LOCK]
        assert not stale.is_dead(made)
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []
    assert stale.is_dead(made)


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
def test_all_of_a_dead_call_and_nothing_of_a_living_one(image: str, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "byoc-of-somebody"  # it bears no lock of ours
    other.mkdir()
    made: dict[str, tuple[str, str, Path]] = {}
    with scratch.folder(beside=tmp_path) as living:
        places = {"dead": dead(tmp_path), "living": living, "elsewhere": tmp_path / "gone"}
        for name, place in places.items():
            owner = "elsewhere 0" if name == "elsewhere" else stale.me()
            labels = [f"--label={stale.OWNER}={owner}", f"--label={stale.FOLDER}={place}"]
            container = engine.docker("create", *labels, image, "none").stdout.strip()
            network = engine.docker("network", "create", *labels, f"byoc-{name}-{os.getpid()}").stdout.strip()
            made[name] = (container, network, place)
        try:
            stale.prune(connect())
            line = next(line for line in capsys.readouterr().err.splitlines() if f"-dead-{os.getpid()}" in line)
            assert line.startswith("removed what a killed call had left: container ")
            for name, (container, network, _) in made.items():
                stays = name != "dead"
                assert (engine.docker("inspect", container, check=False).returncode == 0) == stays
                assert (engine.docker("network", "inspect", network, check=False).returncode == 0) == stays
                assert (f"-{name}-{os.getpid()}" in line) == (not stays)
            assert sorted(tmp_path.iterdir()) == sorted([living, other])
            stale.prune(connect())
            assert f"-dead-{os.getpid()}" not in capsys.readouterr().err
        finally:
            for container, network, _ in made.values():
                engine.docker("rm", "--force", container, check=False)
                engine.docker("network", "rm", network, check=False)
