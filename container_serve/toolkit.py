"""sagemaker-inference's Transformer, without its decoder, and what it needs to be protected from."""

import importlib
import sys
import types
from typing import Any

from sagemaker_inference.content_types import UTF8_TYPES
from sagemaker_inference.utils import retrieve_content_type_header

from container_serve import codec
from container_serve.errors import RequestError


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


def check_text(body: bytes | None, context: Any, *, ours: bool) -> None:
    """The Transformer hands these types on as text; raises RequestError 400 where they are none.

    `ours`: our own input_fn reads the body; raises 415 where it does not take this type at all.
    """
    content_type = retrieve_content_type_header(context.get_all_request_header(0))
    if ours:
        codec.media_type(content_type)
    if content_type in UTF8_TYPES:
        try:
            (body or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise RequestError(400, "InvalidText", f"the {content_type} body is not UTF-8") from None
