"""The notebook: as it is kept, and run from top to bottom on this machine."""

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests import trees

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "local_test" / "train_and_deploy.ipynb"
SECONDS = 900


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(FILE, as_version=4)  # type: ignore[no-untyped-call]


def test_it_is_valid_and_its_outputs_are_stripped(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "metadata" in cell
            assert not cell.metadata
    assert str(ROOT) not in FILE.read_text()


@pytest.mark.timeout(SECONDS)
def test_it_runs_from_top_to_bottom(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = trees.fill(tmp_path / "colours")
    small = ["--arch", "mobilenet_v3_small", "--image-size", "64", "--workers", "0", "--precision", "fp32"]
    # Only what a reader would set: pictures and a network that take seconds, and folders that no one else is using.
    changes = {
        'DATA = "sample"': f"DATA = {str(pictures)!r}",
        "WEIGHTS = None": 'WEIGHTS = "none"',
        "TRIALS = 2": "TRIALS = 1",
        "EXTRA = []": f"EXTRA = {small!r}",
        'NAME = "notebook"': f'NAME = "notebook-{os.getpid()}"',
        'OUT = ROOT / "local_test" / "out.notebook"': f"OUT = Path({str(tmp_path / 'out')!r})",
    }
    for old, new in changes.items():
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        cell.source = cell.source.replace(old, new)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    try:
        client.execute(cwd=str(ROOT / "local_test"))
    finally:
        tuning = ROOT / "local_test" / "tuning" / f"notebook-{os.getpid()}"
        best = json.loads((tuning / "best.json").read_text()) if tuning.exists() else None
        if tuning.exists():
            import shutil

            shutil.rmtree(tuning)
    assert best is not None
    assert best["hyperparameters"]["batch-size"] in ("32", "64")
    said = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    assert "3 classes" in said
    assert "test accuracy" in said
    assert "ready on http://localhost:" in said
    assert "000.jpg" in said
    assert (tmp_path / "out" / "profiler-report.html").is_file()
