"""A user's own program in the artifact (code/inference.py), with any of model_fn, input_fn, predict_fn, output_fn."""

import importlib.util
from pathlib import Path

from container_serve.artifact import CODE
from container_serve.errors import ServeError
from container_serve.settings import PROGRAM, Settings


def is_absent(settings: Settings) -> bool:
    """Tell whether the workers will serve the one artifact's own graph; a user's program may load another."""
    return not settings.multi_model and find(settings, settings.model_dir) is None


def find(settings: Settings, model_dir: Path) -> Path | None:
    """The program for the model in `model_dir`, None if it brings none; importable by its name once its folder is on
    the path. Raises ServeError.
    """
    directory = settings.submit_directory or model_dir / CODE
    path = directory / (settings.program or PROGRAM)
    if path.suffix != ".py":
        path = path.with_name(path.name + ".py")
    if not path.is_file():
        if settings.program:
            raise ServeError(f"SAGEMAKER_PROGRAM: got {settings.program!r}, expected a file in {directory}")
        return None
    if settings.target == "serve" or importlib.util.find_spec("torch") is None:
        raise ServeError(
            f"{path}: this image has no torch for a program of your own;"
            " serve the model with the image target serve-torch, or leave the program out of model.tar.gz"
        )
    return path
