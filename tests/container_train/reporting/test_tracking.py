"""The hyperparameter track: epochs for TensorBoard and MLflow."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from container_train.command_line import parse
from container_train.errors import TrainError
from container_train.monitoring.monitor import Monitor
from container_train.reporting import tracking
from container_train.reporting.tracking import tracker

EPOCHS = [{"epoch": n, "train_loss": 1.0 / n, "valid_accuracy": 0.1 * n} for n in (1, 2)]


@pytest.mark.parametrize("track", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_one_line(track: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in [name for name in sys.modules if name.partition(".")[0] == track]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TrainError, match=rf"track has value '{track}': the package {track} is not installed: `pip"):
        tracking.check(parse(["--track", track]).track)
    tracking.check(parse([]).track)


def test_mlflow_needs_a_server_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv(tracking.SERVER, raising=False)
    with pytest.raises(TrainError, match="set MLFLOW_TRACKING_URI in the job's environment"):
        tracking.check("mlflow")
    monkeypatch.setenv(tracking.SERVER, "http://localhost:5000")
    tracking.check("mlflow")


def test_what_fails_ends_the_tracking_and_not_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is gone, as a module that raises: what mlflow does then is its own affair."""
    gone: Any = ModuleType("mlflow")
    gone.calls = []

    def log_metrics(*given: object, **more: object) -> None:
        gone.calls.append((given, more))
        raise ConnectionError("no server")

    gone.start_run = gone.log_params = lambda *given, **more: gone.calls.append((given, more))
    gone.log_metrics = log_metrics
    monkeypatch.setitem(sys.modules, "mlflow", gone)
    monitor = Monitor()
    monitor.track = tracker("mlflow", tmp_path, {"lr": 0.1}, "dogs")
    for record in EPOCHS:
        monitor.epoch(record)
    assert gone.calls == [((), {"run_name": "dogs"}), (({"lr": 0.1},), {}), ((EPOCHS[0],), {"step": 1})]
    assert [record.getMessage() for record in caplog.records] == [
        "track: no more epochs go to mlflow (ConnectionError: no server)"
    ]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    accumulator: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    write = tracker("tensorboard", tmp_path, {"lr": 0.1, "arch": "resnet50"}, "dogs")
    for record in EPOCHS:
        write(record)
    found = accumulator.EventAccumulator(str(tmp_path / tracking.FOLDER)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train_loss")] == [(1, 1.0), (2, 0.5)]
    again = tracker("tensorboard", tmp_path, {"lr": 0.1}, "dogs")  # after a restart, which begins with the first epoch
    for record in [*EPOCHS, {"epoch": 3, "train_loss": 0.25}]:
        again(record)
    found = accumulator.EventAccumulator(str(tmp_path / tracking.FOLDER)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train_loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert found.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"
