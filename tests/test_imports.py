"""Imports run one way: scripts -> local_test -> container_train -> container_serve; and scripts need no torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Of .venv-cloud, what .venv has and large wheels bring.
MISSING = ("torch", "torchvision", "sagemaker", "openvino", "smdebug", "scipy", "sklearn", "skimage")
LAYERS = ("container_serve", "container_train", "local_test", "scripts")


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, also within functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("layer", LAYERS)
def test_no_import_runs_back_up(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    above = LAYERS[LAYERS.index(layer) + 1 :]
    assert files
    assert [f"{f}: {name}" for f in files for name in imported(f) if name.partition(".")[0] in above] == []


def test_the_scripts_start_without_torch_and_the_sdk() -> None:
    """As in .venv-cloud."""
    programs = sorted(file.stem for file in (ROOT / "scripts").glob("*.py") if file.stem != "__init__")
    code = (
        "import importlib, sys\n"
        f"for name in {MISSING}: sys.modules[name] = None\n"
        f"for name in {programs}: importlib.import_module(f'scripts.{{name}}')\n"
        "from scripts.tuning import cloud, local, report, study\n"
        "from scripts.jobs import local_training\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_temporary_folders_are_made_where_those_of_killed_programs_are_removed() -> None:
    files = [file for layer in LAYERS for file in (ROOT / layer).rglob("*.py") if file.parent.name != "frontend"]
    makers = re.compile(r"\b(TemporaryDirectory|mkdtemp)\b")
    assert [file.name for file in files if makers.search(file.read_text())] == ["scratch.py"]
