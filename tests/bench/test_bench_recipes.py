"""The benchmark of recipes, with a few pictures: that it runs, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

from tests import trees

# As on a machine with a GPU that has torch and torchvision only.
WITHOUT = (
    "import importlib.abc, importlib.machinery, sys\n"
    "class Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        missing = ('smdebug', 'openvino', 'nncf', 'bokeh', 'tqdm', 'pynvml', 'boto3')\n"
    "        return importlib.machinery.ModuleSpec(name, self) if name.partition('.')[0] in missing else None\n"
    "    def create_module(self, spec):\n"
    "        raise ModuleNotFoundError(spec.name)\n"
    "sys.meta_path.insert(0, Missing())\n"
)


def test_it_prints_a_line_for_each_run_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    data = trees.fill(tmp_path / "data")
    words = ["--arch", "resnet18", "--side", "32", "--epochs", "1", "--head-epochs", "1", "--seeds", "1"]
    command = [sys.executable, str(Path(__file__).with_name("bench_recipes.py")), "--data", str(data), *words]
    command += ["--recipes", "finetune", "plain", "--also", "sgd=--optimizer sgd", "--parallel", "2"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    runs = json.loads(lines[-1])
    assert [run["name"] for run in runs] == ["finetune", "plain", "sgd"]
    assert all(0 <= run[split] <= 1 for run in runs for split in ("valid", "test"))
    assert sum(line.startswith("name=") for line in lines) == 3
    assert [line.split()[0] for line in lines[3:7]] == ["recipe", "finetune", "plain", "sgd"]
