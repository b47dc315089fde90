import gzip
import json
from pathlib import Path

import pytest
import torch

from container_train.profiler import trace
from container_train.profiler.trace import Trace


def run(steps: str, count: int, folder: Path) -> Trace:
    layer = torch.nn.Linear(8, 8)
    it = Trace(steps, folder)
    for _ in range(count):
        layer(torch.ones(4, 8)).sum().backward()
        it.step()
    return it


def forward_passes(folder: Path) -> int:
    with gzip.open(folder / trace.NAME) as file:
        return sum(event.get("name") == "aten::linear" for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize(("steps", "passes"), [("2:5", 3), ("0:2", 2), ("1:2", 1)])
def test_the_steps_of_the_window_are_in_the_trace(tmp_path: Path, steps: str, passes: int) -> None:
    it = run(steps, 8, tmp_path)
    assert forward_passes(tmp_path) == passes
    it.close()  # a second time


def test_a_training_that_ends_in_the_window(tmp_path: Path) -> None:
    it = run("3:50", 6, tmp_path)
    assert not (tmp_path / trace.NAME).exists()
    it.close()
    assert forward_passes(tmp_path) == 3


def test_a_training_that_ends_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run("9:10", 4, tmp_path).close()
    assert "there was no step 9" in caplog.text
    assert not (tmp_path / trace.NAME).exists()
