"""What all scripts have in common before they do anything."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_an_interrupt_while_packages_are_imported_leaves_no_traceback() -> None:
    ended = call("-c", "import sys, scripts.environment as e; sys.argv[0] = 'x.py'; e.use(); raise KeyboardInterrupt")
    assert ended.returncode != 0
    assert ended.stderr == "x.py: interrupted\n"


def test_any_other_error_while_packages_are_imported_keeps_its_traceback() -> None:
    ended = call("-c", "import scripts.environment as e; e.use(); raise ImportError('no such thing')")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert "no such thing" in ended.stderr


@pytest.mark.parametrize("setting", ["", "import builtins; builtins.__IPYTHON__ = True; "])
def test_within_another_program_a_missing_package_is_an_import_error(tmp_path: Path, setting: str) -> None:
    """A notebook's kernel that is replaced, or ended, hangs for whoever uses it."""
    cell, name = tmp_path / "cell.py", "__main__" if setting else "cell"
    cell.write_text("from scripts.environment import use\nuse('no_such_package')\n")
    program = f"{setting}import runpy; runpy.run_path({str(cell)!r}, run_name={name!r})"
    ended = call("-c", f"try:\n    {program}\nexcept ImportError as error:\n    print('still here:', error)")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("still here: the package no_such_package is not here: use ")
