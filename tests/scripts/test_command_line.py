"""The part that all scripts share before they do anything."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from container_serve import __version__
from scripts.console import command
from tests.conftest import Capture

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if "command.run(" in path.read_text())


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_flag_without_its_value_is_told_in_one_line(script: Path) -> None:
    ended = call(str(script), "--region") if "settings" in script.read_text() else call(str(script), "--seed")
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{script.name}: ")
    assert line.endswith("; --help lists the flags")


# Ctrl-C in a destructor, of which Python would only print that the exception is ignored; three of them.
DESTRUCTOR = """
import signal, sys, time
sys.argv = ["x.py"]
class Thing:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("import scripts.environment as e\ne.use()\nThing()\nThing()\nThing()", "x.py: interrupted\n"),
        (
            "from scripts.console import command\n"
            "def main(_):\n    Thing()\n    time.sleep(60)\n"
            "code = command.run('x.py', main)\nThing()\nThing()\nsys.exit(code)",
            "x.py: interrupted\n",
        ),
        (
            "from local_test.errors import guarded\n"
            "def main():\n    Thing()\n    time.sleep(60)\n"
            "code = guarded('x.py', main)\nThing()\nThing()\nsys.exit(code)",
            "x.py: stopped, and everything that it had started\n",
        ),
    ],
    ids=["imports", "scripts", "local"],
)
def test_several_ctrl_c_leave_one_line(program: str, line: str) -> None:
    ended = call("-c", DESTRUCTOR + program)
    assert (ended.returncode, ended.stderr) == (130, line)


@pytest.mark.parametrize(
    "program",
    ["scripts/build.sh", "scripts/push.sh", "local_test/run.sh", "local_test/train_local.sh",
     "local_test/serve_local.sh", "local_test/predict.sh"],
)  # fmt: skip
def test_every_shell_script_says_the_version(program: str) -> None:
    ended = subprocess.run([ROOT / program, "--version"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, f"{Path(program).name} {__version__}\n"), ended


def test_every_python_script_says_the_version(capsys: Capture) -> None:
    """They all make their parser here, which the test of a flag without its value relies on, too."""
    assert len(SCRIPTS) == len(list((ROOT / "scripts").glob("*.py"))) - 2  # __init__ and environment
    with pytest.raises(SystemExit, match="0"):
        command.parser("deploy.py", "").parse_args(["--version"])
    assert capsys.readouterr().out == f"deploy.py {__version__}\n"


def test_the_version_stands_in_one_place() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    of_this = [
        name
        for name in listed.splitlines()
        if name.endswith((".toml", ".sh", ".py", ".Dockerfile")) and not name.startswith("tests/")
    ]
    assert [name for name in of_this if f'"{__version__}"' in (ROOT / name).read_text()] == [
        "container_serve/__init__.py"
    ]


def test_pip_says_in_one_line_that_this_is_cloned() -> None:
    """As pip does it, which shows what the backend says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    ended = call("-c", f"import sys; sys.path[0] = '{project['backend-path'][0]}'; import {project['build-backend']}")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "cloned, not installed" in line
    assert "./local_test/run.sh" in line
    assert project["requires"] == []  # nothing is downloaded before it says so


@pytest.mark.parametrize("setting", ["", "import builtins; builtins.__IPYTHON__ = True; "])
def test_within_another_program_a_missing_package_is_an_import_error(tmp_path: Path, setting: str) -> None:
    """A notebook's kernel that is replaced, or ended, hangs for whoever uses it."""
    cell, name = tmp_path / "cell.py", "__main__" if setting else "cell"
    cell.write_text("from scripts.environment import use\nuse('no_such_package')\n")
    program = f"{setting}import runpy; runpy.run_path({str(cell)!r}, run_name={name!r})"
    ended = call("-c", f"try:\n    {program}\nexcept ImportError as error:\n    print('still here:', error)")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("still here: the package no_such_package is not installed in ")


def test_the_environment_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.py", tmp_path / "scripts")
    (tmp_path / "program.py").write_text("from scripts.environment import use\nuse('no_such_package')\n")
    said = call(str(tmp_path / "program.py"))
    assert said.returncode == 1
    assert said.stderr.startswith("program.py: the package no_such_package is not installed: run `local_test/setup.sh")
    for venv in (".venv-cloud", ".venv"):  # of both, the one that has more
        (python := tmp_path / venv / "bin" / "python").parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho {venv} $2\n")
        python.chmod(0o755)
        assert call(str(tmp_path / "program.py"), "--flag").stdout == f"{venv} --flag\n"


# Packages that take long to import, or that not every environment of the scripts has.
HEAVY = {"torch", "torchvision", "timm", "openvino", "scipy", "pandas", "matplotlib", "sagemaker", "boto3", "docker"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_imports_nothing_heavy(script: Path) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(script)!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    ended = call("-c", program)
    assert ended.returncode == 0
    assert "--help" in ended.stdout
    imported = {name.partition(".")[0] for name in ended.stderr.split()}
    assert "argparse" in imported
    assert not imported & HEAVY
