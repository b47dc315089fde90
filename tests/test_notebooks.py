"""The notebooks: as they are kept, and the laptop's run from top to bottom as it is, against its stored results."""

import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import need

ROOT = Path(__file__).parents[1]
LAPTOP, AWS = ROOT / "examples" / "laptop.ipynb", ROOT / "examples" / "aws.ipynb"
SECONDS = 900
LINES, BYTES = 14, 200_000  # most of a cell, of a notebook


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("file", [LAPTOP, AWS], ids=lambda file: file.stem)
def test_they_are_valid_and_short_and_have_no_branches(file: Path) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert str(ROOT) not in file.read_text()
    assert file.stat().st_size < BYTES
    for cell in notebook.cells:
        assert not cell.metadata
        assert len(cell.source.splitlines()) <= LINES, cell.source
        assert not re.search(r"^\s*(else|elif)\b", cell.source, re.MULTILINE), cell.source


def test_the_one_for_aws_says_that_it_was_not_run() -> None:
    notebook = read(AWS)
    assert "Not yet run on an AWS account" in notebook.cells[0].source
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_jupyter_changes_no_package_of_the_environment() -> None:
    jupyter, kept = versions(ROOT / "examples" / "jupyter.lock"), versions(ROOT / "local_test" / "requirements.lock")
    assert "jupyterlab" in jupyter
    assert {name: kept[name] for name in jupyter if name in kept} == {
        name: version for name, version in jupyter.items() if name in kept
    }


def shape(cell: Any) -> list[tuple[str, object]]:
    """Return the part of a cell's output that is the same in every run: kinds and words, no numbers."""
    found: list[tuple[str, object]] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append((output.name, words(output.text)))
        else:
            assert output.output_type != "error", output
            found.append((output.output_type, sorted(output.data)))
            if svg := output.data.get("image/svg+xml"):
                found.append(("svg", [element.tag for element in ET.fromstring(svg).iter()]))
    return found


def words(text: str) -> set[str]:
    """The words of a text, without numbers, paths and whatever else holds a digit."""
    return set(re.findall(r"(?<![\w./-])[A-Za-z][A-Za-z-]+(?![\w./-])", text))


def join(cell: Any) -> None:
    """Make one output of the pieces in which a stream has come."""
    joined: list[Any] = []
    for output in cell.outputs:
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    cell.outputs = joined


@pytest.fixture
def left() -> Iterator[None]:
    """Remove what the notebook leaves. Not where somebody has just run it here."""
    made = [*(ROOT / "local_test").glob("out.notebook*"), ROOT / "local_test" / "tuning" / "notebook"]
    need(not any(path.exists() for path in made), "no results of the notebook in local_test/: remove out.notebook*")
    yield
    for path in [*(ROOT / "local_test").glob("out.notebook*"), ROOT / "local_test" / "tuning" / "notebook"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.timeout(SECONDS)
def test_the_one_for_a_laptop_shows_what_it_has_stored(left: None) -> None:
    stored, fresh = read(LAPTOP), read(LAPTOP)
    client = NotebookClient(fresh, timeout=SECONDS, kernel_name="python3", record_timing=False)
    client.execute(cwd=str(ROOT / "examples"))
    for cell in code(fresh):
        join(cell)
    if os.environ.get("STORE"):  # how the stored results are made
        nbformat.write(fresh, LAPTOP)  # type: ignore[no-untyped-call]
    for before, now in zip(code(stored), code(fresh), strict=True):
        assert shape(before) == shape(now), f"STORE=1 pytest tests/test_notebooks.py stores this:\n{now.source}"
    shown = [kind for cell in code(stored) for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 5
    assert shown.count("image/svg+xml") == 2
