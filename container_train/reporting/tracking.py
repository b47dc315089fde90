"""The epochs of a training for TensorBoard or MLflow, where the hyperparameter `track` asks for it.

Neither package is in the image: one made from it, or the virtual environment, brings it.
"""

import importlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from container_train.errors import TrainError

log = logging.getLogger(__name__)

FOLDER = "tensorboard"  # in output/data, which output.tar.gz holds
SERVER = "MLFLOW_TRACKING_URI"
PACKAGES = {"tensorboard": "tensorboard==2.20.0", "mlflow": "mlflow-skinny"}  # that can live with smdebug's protobuf 3

Write = Callable[[Mapping[str, float]], None]


def check(track: str) -> None:
    """Raises TrainError where the package or the server's address is missing."""
    if track != "none" and importlib.util.find_spec(track) is None:
        raise TrainError(
            f"hyperparameter track has value {track!r}: the package {track} is not installed: `pip install"
            f" {PACKAGES[track]}` in .venv, or in an image made from the training image; or set track to none"
        )
    if track == "mlflow" and not os.environ.get(SERVER):
        raise TrainError(f"hyperparameter track has value 'mlflow': set {SERVER} in the job's environment")


def tracker(track: str, out: Path, hyperparameters: Mapping[str, Any], job: str) -> Write:
    """Return what takes the metrics of each epoch. What fails ends the tracking with a line of log, not the job."""
    makers, writers = ([_WRITERS[track]] if track != "none" else []), list[Write]()

    def write(record: Mapping[str, float]) -> None:
        try:
            while makers:
                writers.append(makers.pop()(out / FOLDER, hyperparameters, job))
            for each in writers:
                each(record)
        except Exception as error:
            words = str(error).partition("\n")[0]
            log.warning("track: no more epochs go to %s (%s: %s)", track, type(error).__name__, words)
            writers.clear()

    return write


def _tensorboard(folder: Path, hyperparameters: Mapping[str, Any], _job: str) -> Write:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    shutil.rmtree(folder, ignore_errors=True)  # after a restart all epochs are written again
    writer: Any = SummaryWriter(str(folder))
    for summary in hparams(dict(hyperparameters), {"valid_accuracy": 0.0}):
        writer.file_writer.add_summary(summary)

    def write(record: Mapping[str, float]) -> None:
        for name, value in record.items():
            writer.add_scalar(name, value, int(record["epoch"]))
        writer.flush()

    return write


def _mlflow(_folder: Path, hyperparameters: Mapping[str, Any], job: str) -> Write:
    mlflow: Any = importlib.import_module("mlflow")
    mlflow.start_run(run_name=job or None)  # ended by mlflow as the process ends
    mlflow.log_params(dict(hyperparameters))
    return lambda record: mlflow.log_metrics(dict(record), step=int(record["epoch"]))


_WRITERS = {"tensorboard": _tensorboard, "mlflow": _mlflow}
