"""sagemaker-inference's Transformer, without its decoder."""

import importlib
import sys
import types
from typing import Any


def _import_transformer() -> Any:
    """The class, imported while its decoder is a stand-in.

    That decoder unpickles what a caller sends (np.load with allow_pickle), so nothing of ours may reach it, and it
    imports scipy, half of a worker's start. A user's own program can import the real one all the same.
    """
    name = "sagemaker_inference.decoder"
    stand_in = types.ModuleType(name)
    sys.modules[name] = stand_in
    try:
        return importlib.import_module("sagemaker_inference.transformer").Transformer
    finally:
        del sys.modules[name]
        package = sys.modules["sagemaker_inference"]
        if getattr(package, "decoder", None) is stand_in:
            del package.decoder


Transformer: Any = _import_transformer()
