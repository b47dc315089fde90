"""Small artifacts, and pictures for them."""

import importlib
import io
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from container_serve import artifact
from container_serve.predictor import Predictor
from container_serve.preprocess import Preprocessing

CLASSES = ("red", "green", "blue")
SIDE = 32
COPIES = 20  # of each colour in a model that is to take its time


def write_model(directory: Path, *, classes: tuple[str, ...] = CLASSES, seconds: float = 0) -> Path:
    """An artifact whose three outputs are the picture's mean red, green and blue.

    It is the smallest convolutional network that gives different answers to different pictures; with `seconds` it has
    as many more layers as make a prediction take that long here, on one core with nothing else to do.
    """
    _write(directory, classes, 0)
    if seconds:
        base, layers = _seconds(directory), 8
        _write(directory, classes, layers)
        _write(directory, classes, round(layers * seconds / (_seconds(directory) - base)))
    return directory


def _write(directory: Path, classes: tuple[str, ...], layers: int) -> None:
    openvino: Any = importlib.import_module("openvino")
    ops: Any = importlib.import_module("openvino.opset13")
    directory.mkdir(parents=True, exist_ok=True)

    def convolution(x: Any, weights: "np.ndarray[Any, Any]") -> Any:
        around = [weights.shape[2] // 2] * 2
        return ops.convolution(x, weights.astype(np.float32), [1, 1], around, around, [1, 1])

    picture = x = ops.parameter([-1, 3, SIDE, SIDE], np.float32, name="picture")
    widen = np.tile(np.eye(3), (COPIES, 1)).reshape(3 * COPIES, 3, 1, 1)  # each colour so many times
    x = convolution(x, widen)
    same = np.zeros((3 * COPIES, 3 * COPIES, 3, 3))
    same[:, :, 1, 1] = np.eye(3 * COPIES)
    for _ in range(layers):
        x = convolution(x, same)
    x = convolution(x, widen.transpose(1, 0, 2, 3) / COPIES)
    logits = ops.multiply(ops.reduce_mean(x, np.array([2, 3]), False), np.float32(3))
    openvino.save_model(openvino.Model([logits], [picture], "tiny"), directory / artifact.GRAPH)
    artifact.write(
        directory,
        classes=classes,
        architecture="tiny",
        preprocessing=Preprocessing(SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear"),
        precision="fp32",
    )


def _seconds(directory: Path) -> float:
    """The median of a prediction."""
    predictor = Predictor(artifact.read(directory))
    batch = np.zeros((1, 3, SIDE, SIDE), np.float32)
    predictor.probabilities(batch)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        predictor.probabilities(batch)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def picture(color: str, form: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, form)
    return buffer.getvalue()
