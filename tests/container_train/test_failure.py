"""The line that comes first in the failure file, of failures that the toolkit reports."""

from pathlib import Path

import pytest

from container_train import failure


@pytest.mark.parametrize(
    ("report", "program", "line"),
    [
        (
            "ExecuteUserScriptError:\nExitCode -9\n",
            "",
            "the training program was killed by SIGKILL, mostly for lack",
        ),
        (
            "ExecuteUserScriptError:\nExitCode 139\n",
            "",
            "the training program was killed by SIGSEGV, mostly for an",
        ),
        ("ExecuteUserScriptError:\nExitCode -9\n", "mine.py", "mine.py ended with code -9: see its log"),
        ("ExecuteUserScriptError:\nExitCode 3\n", "mine:main", "mine:main ended with code 3: see its log"),
        ("ExecuteUserScriptError:\nExitCode 2\n", "gone.py", "the program is 'gone.py' (sagemaker_program), but "),
        ("Framework Error:\nTraceback\n  at x\nValueError: bad\n", "mine.py", "ValueError: bad"),
        ("InstallRequirementsError:\nExitCode 1\n", "mine.py", "requirements.txt could not be installed: see the log;"),
        ("hyperparameter lr has value 'x'", "", ""),
        ("ExecuteUserScriptError:\nExitCode 1\n", "", ""),
    ],
)
def test_a_report_of_the_toolkit(report: str, program: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    found = failure.of_toolkit(report, program, tmp_path, tmp_path / "pip.log")
    assert found.startswith(line)
    assert bool(found) == bool(line)


def test_pip_s_reason_is_taken_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "pip.log"
    log.write_text("ERROR: No matching distribution found for x==1\n")
    report = "InstallRequirementsError:\nExitCode 1\n"
    assert "no x==1 was found for this Python" in failure.of_toolkit(report, "mine.py", tmp_path, log)
    log.write_text("x: connection broken by\nERROR: No matching distribution found for x==1\n")
    assert "no network, x==1" in failure.of_toolkit(report, "mine.py", tmp_path, log)
