"""CI's verdict on a run of the tests: whatever becomes of pytest, it cannot look better than it was."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# The parts of tests/conftest.py that .ci/tests.py relies on, in a project of its own.
CONFTEST = "from tests.conftest import pytest_collection_modifyitems, pytest_sessionfinish\n"
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
# Fails at the first call only, which leaves a file.
ONCE = """
from pathlib import Path
import pytest
@pytest.mark.{mark}
@pytest.mark.parametrize("word", ["x [y]"])
def test_once(word):
    seen = Path(__file__).with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        assert False
"""
KILLS = "import os, signal\ndef test_kills(): os.kill(os.{whom}(), signal.SIGKILL)\n"


def verdict(folder: Path, conftest: str = CONFTEST, **modules: str) -> tuple[int, list[str]]:
    """Exit code and lines of .ci/tests.py over a project with these test modules, run on one lane of its own."""
    project = folder / "project"
    project.mkdir(exist_ok=True)
    (project / "conftest.py").write_text(conftest)
    (project / "pytest.ini").write_text("[pytest]\nmarkers = timing\n    other\n    full\n")
    for name, text in modules.items():
        (project / f"test_{name}.py").write_text(text)
    # What `make test` does, with the lanes of CI or without.
    make = 'import shlex, sys; a = shlex.split(sys.argv[1].split("=", 1)[1])\nsys.argv = ["pytest", "-n", "2", *a]\n'
    (folder / "make.py").write_text(make + "import pytest; sys.exit(pytest.console_main())\n")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "tests.py", folder / "results", sys.executable, folder / "make.py"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_what_passes_passes(tmp_path: Path) -> None:
    skips = "import pytest\ndef test_skips(): pytest.skip('no such thing')\n"
    code, lines = verdict(tmp_path, a=PASSES, b=skips)
    assert (code, lines[-1]) == (0, "1 passed, 0 failed, 1 skipped")


def test_a_failure_is_never_run_again(tmp_path: Path) -> None:
    code, lines = verdict(tmp_path, a=PASSES, once=ONCE.format(mark="other"))
    assert (code, lines[-1]) == (1, "1 passed, 1 failed, 0 skipped")


def test_what_depends_on_time_is_run_again_and_named(tmp_path: Path) -> None:
    code, lines = verdict(tmp_path, a=PASSES, once=ONCE.format(mark="timing"))
    assert code == 0
    assert lines[-3:] == [
        "== 1 passed only when run once more, alone:",
        "test_once::test_once[x [y]]",
        "2 passed, 0 failed, 0 skipped",
    ]


def test_nothing_is_run_again_beside_another_failure(tmp_path: Path) -> None:
    code, lines = verdict(tmp_path, a=FAILS, once=ONCE.format(mark="timing"))
    assert (code, lines[-1]) == (1, "0 passed, 2 failed, 0 skipped")


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    code, lines = verdict(tmp_path, a="import pytest\n@pytest.mark.timing\n" + FAILS, b=PASSES)
    assert (code, lines[-1]) == (1, "1 passed, 1 failed, 0 skipped")


@pytest.mark.parametrize("whom", ["getpid", "getppid"])
def test_a_pytest_that_is_killed_is_a_failure(tmp_path: Path, whom: str) -> None:
    """A worker of xdist, and its controller. xdist starts another worker, and the test that was running has failed."""
    (tmp_path / "project" / ".pytest_cache/v/cache").mkdir(parents=True)
    # What an earlier run has left.
    (tmp_path / "project/.pytest_cache/v/cache/lastfailed").write_text('{"test_a.py::test_passes": true}')
    code, lines = verdict(tmp_path, a=PASSES, kills=KILLS.format(whom=whom))
    assert code == 1
    assert lines[-1].split(", ")[1] == "1 failed"
    if whom == "getppid":
        assert "it was killed" in lines[-2]


LEAVES = {
    "at the end": "import os\ndef pytest_unconfigure(config): os._exit(0)\n",
    "before junit.xml": "import os, pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionfinish(): os._exit(0)\n",
    "after a test": "import pytest\ndef pytest_runtest_logreport(report):\n"
    "    if report.when == 'call': pytest.exit('enough', returncode=0)\n",
    "in its own code": "def pytest_runtest_logreport(report): 1 / 0\n",
}


@pytest.mark.parametrize("when", LEAVES)
def test_a_pytest_that_ends_otherwise_than_it_should_is_a_failure(tmp_path: Path, when: str) -> None:
    """A plugin that only the controller has, as for a fault of pytest or of xdist."""
    (tmp_path / "leaves.py").write_text(LEAVES[when])
    early = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    early += "def pytest_configure(config):\n    if not hasattr(config, 'workerinput'):\n"
    early += "        import leaves; config.pluginmanager.register(leaves)\n"
    code, lines = verdict(tmp_path, conftest=CONFTEST + early, a=PASSES, b=PASSES, c=PASSES)
    if when == "at the end":  # all results are there, and so is pytest's own exit code
        assert (code, lines[-1]) == (0, "3 passed, 0 failed, 0 skipped")
    else:
        assert code == 1
        assert lines[-1].split(", ")[1] != "0 failed"


def test_results_of_another_folder_do_not_count(tmp_path: Path) -> None:
    """A test that calls pytest hands on its arguments if it is not careful, and the results are overwritten."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "conftest.py").write_text(CONFTEST)
    (elsewhere / "test_a.py").write_text(PASSES)
    kills = (
        "import os, signal, subprocess, sys\n"
        "def test_kills():\n"
        f"    options = ['--rootdir', '.', '--junitxml', {str(tmp_path / 'results' / 'junit.xml')!r}]\n"
        f"    subprocess.run([sys.executable, '-m', 'pytest', *options], cwd={str(elsewhere)!r}, check=True)\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
    )
    code, lines = verdict(tmp_path, a=kills)
    assert (code, lines[-1]) == (1, "1 passed, 1 failed, 0 skipped")
    assert "not of this folder" in lines[-2]


def test_results_of_an_earlier_run_do_not_count(tmp_path: Path) -> None:
    assert verdict(tmp_path, a=PASSES)[0] == 0
    assert verdict(tmp_path, a=PASSES) == (1, [])


@pytest.mark.parametrize("arguments", [(), ("--help",), ("new",), (".", "true"), ("new", "no-such-command")])
def test_a_wrong_call_is_one_line_and_makes_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "tests.py", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_hosted_workflow_calls_the_makefile_s_targets() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    called = [words.split() for step in steps if (words := step.get("run", "")).startswith("make ")]
    assert {word for _, *words in called for word in words} == {"lint", "test-fast", "images", "test-docker", "soak"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert all(word in targets for _, *words in called for word in words)
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
