"""The benchmark of growth, with a few images: that it runs, and that what it measures is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.full
def test_it_measures_the_images_and_the_feature_cache(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("bench_growth.py")), "--counts", "600", "--classes", "3"]
    command += ["--features", "--folder", str(tmp_path), "--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["name"]: figure["measured"] for figure in json.loads((tmp_path / "figures.json").read_text())}
    assert [name.partition(": ")[2].partition(": ")[2] for name in figures] == [
        "seconds to the first step", "memory of the images", "feature cache, first start: written",
        "feature cache, second start: read", "feature cache, batches of an epoch",
    ]  # fmt: skip
    assert all(value >= 0 for name, value in figures.items() if "seconds" in name)
