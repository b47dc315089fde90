"""Graphs on the disk."""

import errno
import os
from pathlib import Path
from typing import Any

from container_serve.predictor import load_openvino


def save(graph: Any, file: Path) -> None:
    """Write an OpenVINO model: `file` (.xml) and its weights beside it (.bin).

    Raises OSError where the disk is full, of which OpenVINO speaks in the words of C++ streams.
    """
    try:
        load_openvino().save_model(graph, file, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream error" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from None
        raise
