"""SECURITY.md names the test of each claim, and each test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_test_that_it_names_exists() -> None:
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    functions = set(re.findall(r"^def (test_\w+)\(", "\n".join(sources.values()), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 20
    assert named - functions == set()
    files = set(re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py|tests/\w+)`", TEXT))
    assert files
    names = {path.name for path in sources}
    assert [name for name in files if not (ROOT / name).exists() and name not in names] == []


def test_every_row_of_its_tables_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| they send")]
    assert len(rows) > 10
    assert [row for row in rows if "test_" not in row.rsplit("|", 2)[1]] == []
