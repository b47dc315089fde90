"""System metrics read back; rows without a dimension, several hosts, the service's own layout."""

import json
from pathlib import Path

import pytest

from container_train.profiler import store
from tests.container_train.profiler import metrics


def test_series_by_dimension_and_by_name(tmp_path: Path) -> None:
    rows = {**metrics.cpu([10, 20], [1, 2]), **metrics.gpu("gpu0", [50, 60])}
    metrics.write(tmp_path, {**rows, ("memory", "MemoryUsedPercent", ""): [5, 6]})
    metrics.write(tmp_path, metrics.cpu([30, 40, 50]), node="algo-2")
    system = store.system(tmp_path)
    assert system.nodes() == ["algo-1", "algo-2"]
    found = system.series(store.CPU)
    assert {key: series.values.tolist() for key, series in found.items()} == {
        ("algo-1", "cpu0"): [10, 20],
        ("algo-2", "cpu0"): [30, 40, 50],
    }
    assert found["algo-2", "cpu0"].times.tolist() == [metrics.START + s for s in (0, 0.5, 1)]
    assert list(system.series(store.MEMORY, "algo-1")) == [("algo-1", "MemoryUsedPercent")]
    assert system.series(store.MEMORY, "algo-2") == {}


@pytest.mark.parametrize("folder", ["profiler-output/system/incremental/2023111422", "system/incremental"])
def test_the_service_s_own_layouts(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    row = {"Type": "cpu", "Name": "cpu0", "Dimension": "CPUUtilization", "Value": 1.5, "NodeId": "algo-1"}
    (tmp_path / folder / "1700000000.algo-1.json").write_text(json.dumps({**row, "Timestamp": 1_700_000_000.5}) + "\n")
    assert store.system(tmp_path).series(store.CPU)["algo-1", "cpu0"].values.tolist() == [1.5]


def test_lines_that_are_being_written_and_lines_that_are_broken(tmp_path: Path) -> None:
    metrics.write(tmp_path, metrics.cpu([1, 2]))
    path = next(tmp_path.rglob("*.json"))
    text = path.read_text()
    path.write_text("\0\0garbage\n" + text[:-30])  # as a full disk and a reader that is too early would see it
    assert store.system(tmp_path).series(store.CPU)["algo-1", "cpu0"].values.tolist() == [1]
    with path.open("a") as file:
        file.write(text[-30:])
    assert store.system(tmp_path).series(store.CPU)["algo-1", "cpu0"].values.tolist() == [1, 2]
