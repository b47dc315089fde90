"""--max-usd of train.py and tune.py: what a job may cost at most, refused before anything is made."""

import json

import pytest

from scripts import train, tune
from scripts.console.command import run
from tests.cloud.test_train import BASE, DATA

PROGRAMS = {"train.py": train.main, "tune.py": tune.main}


def call(program: str, *arguments: str) -> int:
    return run(program, PROGRAMS[program], [*BASE, *DATA, *arguments, "--dry-run"])


@pytest.mark.parametrize(
    ("program", "flags", "counted", "usd"),
    [
        ("train.py", "--max-run 7200", "1 x ml.g4dn.xlarge, 2 h", "2.21"),
        (
            "train.py",
            "--max-run 7200 --instance-count 3 --instance-type ml.g5.xlarge",
            "3 x ml.g5.xlarge, 2 h",
            "12.67",
        ),
        ("train.py", "--max-run 3600 --keep-alive 3600", "2 h, 3600 s of them kept for the next job", "2.21"),
        ("train.py", "--max-run 3600 --instance-type ml.g4dn.xlarge,ml.g5.xlarge", "1 x ml.g5.xlarge, 1 h", "2.11"),
        ("tune.py", "--max-run 3600 --trials 4", "4 h in 4 jobs", "4.42"),
        ("tune.py", "--max-run 3600 --trials 4 --train-best", "5 h in 5 jobs", "5.52"),
    ],
)
def test_a_job_that_may_cost_more_is_refused(
    program: str, flags: str, counted: str, usd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(program, *flags.split(), "--max-usd", str(float(usd) - 0.01)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert counted in captured.err
    assert f"this may cost {usd} USD, so nothing was made" in captured.err.splitlines()[-1]
    assert call(program, *flags.split(), "--max-usd", str(float(usd) + 0.01)) == 0
    assert json.loads(capsys.readouterr().out)
