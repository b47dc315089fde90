"""setup.sh: which Python it takes, and what it says where there is none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "local_test" / "setup.sh"


def find(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SETUP, "--find"], env=dict(os.environ) | environment, capture_output=True, text=True)


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_runs_is_named(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "python3.11", "exit 127")  # a shim that cannot run is passed over
    done = find(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (done.returncode, str(tmp_path) in done.stdout) == (0, False), done.stderr
    version = subprocess.run([done.stdout.strip(), "--version"], capture_output=True, text=True).stdout
    assert version.startswith(("Python 3.11", "Python 3.12"))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    return done.stderr


def test_no_python_or_one_without_venv_is_said_in_one_line(tmp_path: Path) -> None:
    assert "no Python 3.11 or 3.12" in one_line(find(PYTHON="python9.9"))
    fake(tmp_path, "bare", 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    assert "python3-venv" in one_line(find(PYTHON=str(tmp_path / "bare")))


@pytest.mark.parametrize(
    ("machine", "macos", "words"),
    [
        ("x86_64", "14.5", "no wheels for macOS 14.5 on x86_64, only for macOS 14 and newer on Apple silicon"),
        ("arm64", "13.6.1", "no wheels for macOS 13.6.1 on arm64"),
        ("arm64", "15.0", "no Python 3.12 found (looked for: python3.12 python3 python)"),
    ],
)
def test_what_a_mac_needs_is_said_in_one_line(tmp_path: Path, machine: str, macos: str, words: str) -> None:
    fake(tmp_path, "uname", f'[ "$1" = -m ] && echo {machine} || echo Darwin')
    fake(tmp_path, "sw_vers", f"echo {macos}")
    for name in ("python3.12", "python3", "python"):
        fake(tmp_path, name, "exit 1")
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    assert words in one_line(find(PATH=str(tmp_path)))


def test_a_mac_takes_python_3_12_where_there_is_3_11_too(tmp_path: Path) -> None:
    fake(tmp_path, "uname", '[ "$1" = -m ] && echo arm64 || echo Darwin')
    fake(tmp_path, "sw_vers", "echo 14.0")
    for name, minor in (("python3.11", 11), ("python3.12", 12)):
        fake(tmp_path, name, f'case "$2" in *"(3, {minor})"*) exit 0 ;; *ensurepip*) exit 0 ;; *) exit 1 ;; esac')
    done = find(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout.strip() == str(tmp_path / "python3.12"), done.stderr


def test_an_argument_that_it_does_not_know_is_refused() -> None:
    for words in (["--foo"], ["--find", "more"], [""]):
        done = subprocess.run(["bash", str(SETUP), *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "it takes cloud, --find, or nothing" in done.stderr


def test_a_finished_environment_costs_nothing(tmp_path: Path) -> None:
    """In a copy, so that the environment that runs this test stays out of it."""
    copy = tmp_path / "copy"
    (copy / "local_test").mkdir(parents=True)
    (copy / "docker").mkdir()
    for name in ("local_test/setup.sh", "local_test/requirements.lock", "docker/uv.lock"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    fake(tmp_path / "bin", "python-that-fails", "exit 1")
    (copy / ".venv" / "bin").mkdir(parents=True)
    fake(copy / ".venv" / "bin", "python", "exit 0")
    locks = b"".join((ROOT / name).read_bytes() for name in ("local_test/requirements.lock", "docker/uv.lock"))
    hashed = subprocess.run(["sha256sum"], input=locks, capture_output=True).stdout
    (copy / ".venv" / ".complete").write_bytes(hashed)
    command = ["bash", str(copy / "local_test" / "setup.sh")]
    environment = dict(os.environ) | {"PYTHON": str(tmp_path / "bin" / "python-that-fails")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # Without its stamp it was interrupted: made anew, which this Python cannot do.
    (copy / ".venv" / ".complete").unlink()
    assert subprocess.run(command, env=environment, capture_output=True, text=True).returncode == 1


def test_the_packages_with_c_parts_are_in_the_lock() -> None:
    """They are installed by these names, apart from the others, if there is no compiler."""
    line = next(line for line in SETUP.read_text().splitlines() if line.startswith("c_parts="))
    names = line.partition("=")[2].strip('"').split()
    locked = (ROOT / "local_test" / "requirements.lock").read_text().splitlines()
    assert [any(entry.startswith(f"{name}==") for entry in locked) for name in names] == [True, True]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_environment_for_the_cloud_is_small_and_runs_the_scripts(tmp_path: Path) -> None:
    for name in ("local_test/setup.sh", "local_test/cloud.lock", "docker/uv.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["bash", str(tmp_path / "local_test" / "setup.sh"), "cloud"], check=True)
    venv = tmp_path / ".venv-cloud"
    assert sum(file.lstat().st_size for file in venv.rglob("*")) <= 400e6
    for script in sorted((ROOT / "scripts").glob("*.py")):
        command = [str(venv / "bin" / "python"), str(script), "--help"]
        assert subprocess.run(command, capture_output=True).returncode == 0, script
