"""Run the tests and sum up what came of them: `tests.py RESULTS COMMAND ...`, for example `tests.py /tmp/ci make test`.

COMMAND is called with one more argument, PYTEST_ARGS=..., as `make test` takes it. The sum is the last line: "N passed,
N failed, N skipped". The exit code is 0 only if pytest itself reports that it ran all it collected, and nothing failed:

* pytest leaves a junit.xml and, beside it, its own exit code with the number of tests it collected (tests/conftest.py).
  Where either is missing, pytest was killed. Neither can be of an earlier run: RESULTS has to be a new folder, and
  pytest's cache is off.
* Tests that are marked `timing` depend on how fast the machine is at that moment. If nothing else failed, they run once
  more, alone. Those that pass only then are counted and named.

Standard library only: it has to report even when the environment is broken.
"""

import json
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
FIRST_OPTIONS = "-n 2 --durations=25 --disable-warnings"
AGAIN_OPTIONS = "-n 0 --disable-warnings"


@dataclass(frozen=True)
class Case:
    """`node` is what pytest takes to run the test alone; it is given for tests marked `timing` only."""

    outcome: str
    node: str | None


@dataclass(frozen=True)
class Run:
    """`problem` says in one line why the cases are not the whole story, or is empty."""

    cases: dict[str, Case]
    problem: str

    def named(self, outcome: str) -> list[str]:
        return [name for name, case in self.cases.items() if case.outcome == outcome]


def run(command: list[str], junit: Path, options: str) -> Run:
    arguments = f"{options} -p no:cacheprovider --junitxml={shlex.quote(str(junit))}"
    code = subprocess.run([*command, f"PYTEST_ARGS={arguments}"], check=False).returncode
    return read(junit, code)


def read(junit: Path, code: int) -> Run:
    """Read what pytest left beside its junit.xml; `code` is the exit code of the whole command, which may be make's."""
    try:
        cases = _cases(ET.parse(junit))
    except (OSError, ET.ParseError):
        return Run({}, f"pytest left no {junit.name}, its command ended with {code}: it was killed, or never began")
    try:
        status = json.loads(junit.with_suffix(".json").read_text())
        exit_code, collected = int(status["exit_code"]), int(status["collected"])
    except (OSError, ValueError, KeyError, TypeError):
        return Run(cases, f"pytest did not write its exit code, its command ended with {code}: it was killed")
    failed = any(case.outcome == FAILED for case in cases.values())
    if Path(status["root"]) != Path.cwd():
        return Run(cases, f"the results are of {status['root']}, not of this folder")
    if exit_code not in (0, 1):
        return Run(cases, f"pytest ended with {exit_code}, which is neither 0 (all passed) nor 1 (tests failed)")
    if not collected or len(cases) < collected:
        return Run(cases, f"{len(cases)} of {collected} tests have a result")
    if failed != (exit_code == 1) or failed != (code != 0):
        return Run(cases, f"pytest ended with {exit_code}, its command with {code}: the results say otherwise")
    return Run(cases, "")


def _cases(document: "ET.ElementTree[ET.Element]") -> dict[str, Case]:
    """By name. A test that fails and cannot be taken down either has two entries: the worse one counts."""
    found: dict[str, Case] = {}
    for element in document.iter("testcase"):
        name = f"{element.get('classname')}::{element.get('name')}"
        parts = {part.tag for part in element}
        outcome = FAILED if parts & {"failure", "error"} else SKIPPED if "skipped" in parts else PASSED
        node = next((p.get("value") for p in element.iter("property") if p.get("name") == "timing"), None)
        if name not in found or outcome == FAILED:
            found[name] = Case(outcome, node or (found[name].node if name in found else None))
    return found


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        sys.exit("usage: tests.py RESULTS COMMAND ..., where RESULTS is a folder that is not there yet")
    results, command = Path(sys.argv[1]), sys.argv[2:]
    if results.exists():  # so that nothing in it is from before
        sys.exit(f"tests.py: {results} exists already: give a new folder")
    if shutil.which(command[0]) is None:
        sys.exit(f"tests.py: {command[0]}: no such command")
    results.mkdir()
    first = run(command, results / "junit.xml", FIRST_OPTIONS)
    cases, problems, again = dict(first.cases), [first.problem] * bool(first.problem), []
    failed = first.named(FAILED)
    nodes = [cases[name].node for name in failed]
    if failed and not problems and all(nodes):
        print("== these depend on the machine's speed, once more and alone:", *failed, sep="\n", flush=True)
        second = run(command, results / "again.xml", f"{AGAIN_OPTIONS} {shlex.join(map(str, nodes))}")
        problems += [second.problem] * bool(second.problem)
        again = [name for name in failed if name in second.cases and second.cases[name].outcome == PASSED]
        cases.update({name: second.cases[name] for name in again})
    counts = Counter(case.outcome for case in cases.values())
    for problem in problems:
        print(f"== the tests did not run as they should: {problem}")
    if again:
        print(f"== {len(again)} passed only when run once more, alone:", *again, sep="\n")
    bad = counts[FAILED] + len(problems)
    print(f"{counts[PASSED]} passed, {bad} failed, {counts[SKIPPED]} skipped", flush=True)
    return 1 if bad or not counts[PASSED] else 0


if __name__ == "__main__":
    sys.exit(main())
