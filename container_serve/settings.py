"""Every environment variable of the serving program, read in one place."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from container_serve.codec.media import JSON, negotiate
from container_serve.errors import RequestError, ServeError

MODEL_DIR = "/opt/ml/model"  # where the platform unpacks model.tar.gz
PORT = 8080  # where the platform expects the server
MAX_PORT = 32766  # multi-model-server's own limit
MAX_REQUEST_BYTES = 6_291_456  # the platform's limit for real-time requests
MAX_PAYLOAD_MB = 100  # its limit for those of batch transform
MAX_PIXELS = 50_000_000  # of an image
TIMEOUT_SECONDS = 55  # the platform gives up after 60: answer before
STARTUP_TIMEOUT_SECONDS = 600  # the toolkit's default
QUEUE_SIZE = 100  # multi-model-server's default
PROGRAM = "inference.py"
PAGE = "BYOC_PAGE"
SUBMIT_DIRECTORY = "SAGEMAKER_SUBMIT_DIRECTORY"  # where it lies

T = TypeVar("T", int, None)


@dataclass(frozen=True)
class Settings:
    """The settings of one server; None where the program decides by itself."""

    model_dir: Path
    port: int
    workers: int | None
    threads: int | None
    timeout: int  # seconds a request may take, waiting included
    startup_timeout: int  # seconds until the first worker has loaded the model
    max_request_bytes: int
    default_accept: str
    log_level: int  # of the logging module
    multi_model: bool
    page: bool  # answer GET /, /info, /metrics and /openapi.json, too
    max_pixels: int
    image_bytes: int | None  # of memory, to decode one image
    queue_size: int  # requests that may wait beside those being worked on
    program: str | None  # the user's own program, if one was named
    submit_directory: Path | None  # where it lies, if that is a local folder
    user: str | None  # whom a server that was started as root becomes
    target: str | None  # which container image this is: serve or serve-torch

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; an empty value counts as absent. Raises ServeError that names key and value."""
        env = {key: value.strip() for key, value in environ.items() if value.strip()}
        submit = env.get(SUBMIT_DIRECTORY, "").removeprefix("file://")
        # As batch transform tells its containers; 0 MB, "no limit", is as much as it can send.
        payload = _whole(env, "SAGEMAKER_MAX_PAYLOAD_IN_MB", None, 0, 1900)
        request_bytes = MAX_REQUEST_BYTES if payload is None else (payload or MAX_PAYLOAD_MB) * 2**20
        return cls(
            model_dir=Path(env.get("BYOC_MODEL_DIR", MODEL_DIR)),
            port=_whole(env, "SAGEMAKER_BIND_TO_PORT", PORT, 1, MAX_PORT),
            workers=_whole(env, "SAGEMAKER_MODEL_SERVER_WORKERS", None, 1, 512),
            threads=_whole(env, "BYOC_THREADS", None, 1, 512),
            timeout=_whole(env, "SAGEMAKER_MODEL_SERVER_TIMEOUT", TIMEOUT_SECONDS, 1, 3600),
            startup_timeout=_whole(env, "SAGEMAKER_STARTUP_TIMEOUT", STARTUP_TIMEOUT_SECONDS, 1, 86400),
            max_request_bytes=_whole(env, "SAGEMAKER_MAX_REQUEST_SIZE", request_bytes, 1, 2_000_000_000),
            default_accept=_accept(env, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"),
            log_level=_level(env, "SAGEMAKER_CONTAINER_LOG_LEVEL"),
            multi_model=_flag(env, "SAGEMAKER_MULTI_MODEL"),
            page=_flag(env, PAGE),
            max_pixels=_whole(env, "BYOC_MAX_PIXELS", MAX_PIXELS, 1, 2**31),
            image_bytes=_whole(env, "BYOC_PICTURE_BYTES", None, 1, 2**39),
            queue_size=_whole(env, "BYOC_QUEUE_SIZE", QUEUE_SIZE, 0, 100_000),
            program=env.get("SAGEMAKER_PROGRAM"),
            # The SDK also puts the S3 address of the code here; the code itself then lies in the model's folder.
            submit_directory=Path(submit) if submit.startswith("/") else None,
            user=env.get("BYOC_USER"),
            target=env.get("BYOC_TARGET"),
        )


def _whole(env: Mapping[str, str], key: str, default: T, low: int, high: int) -> int | T:
    value = env.get(key)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", value) or not low <= int(value) <= high:
        raise ServeError(f"{key}: got {value!r}, expected a whole number from {low} to {high}")
    return int(value)


def _flag(env: Mapping[str, str], key: str) -> bool:
    value = env.get(key, "false").lower()
    if value not in ("true", "false"):
        raise ServeError(f"{key}: got {env[key]!r}, expected true or false")
    return value == "true"


def _level(env: Mapping[str, str], key: str) -> int:
    value, levels = env.get(key, "INFO"), logging.getLevelNamesMapping()
    if re.fullmatch(r"[0-9]{1,3}", value):
        return int(value) or logging.INFO  # 0 is "not set" for the logging module
    if value.upper() not in levels:
        raise ServeError(f"{key}: got {value!r}, expected a number or one of {', '.join(levels)}")
    return levels[value.upper()] or logging.INFO


def _accept(env: Mapping[str, str], key: str) -> str:
    value = env.get(key, JSON)
    try:
        negotiate(value)
    except RequestError as error:
        raise ServeError(f"{key}: {error}") from None
    return value
