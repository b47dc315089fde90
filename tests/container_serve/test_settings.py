from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from container_serve.__main__ import _port
from container_serve.errors import ServeError
from container_serve.settings import Settings


def test_defaults() -> None:
    settings = Settings.read({})
    assert settings.model_dir == Path("/opt/ml/model")
    assert settings.port == 8080
    assert settings.timeout == 55
    assert settings.startup_timeout == 600
    assert settings.max_request_bytes == 6_291_456
    assert settings.default_accept == "application/json"
    assert settings.log_level == 20
    assert settings.max_pixels == 50_000_000
    assert (settings.workers, settings.threads, settings.program, settings.target) == (None, None, None, None)
    assert settings.image_bytes is None
    assert not settings.multi_model
    assert not settings.page


@pytest.mark.parametrize(("megabytes", "limit"), [("1", 2**20), ("100", 100 * 2**20), ("0", 100 * 2**20)])
def test_batch_transform_says_how_large_its_requests_are(megabytes: str, limit: int) -> None:
    env = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": megabytes}
    assert Settings.read(env).max_request_bytes == limit
    assert Settings.read({**env, "SAGEMAKER_MAX_REQUEST_SIZE": "1000"}).max_request_bytes == 1000


def test_every_variable() -> None:
    settings = Settings.read(
        {
            "SAGEMAKER_BIND_TO_PORT": "9000",
            "SAGEMAKER_MODEL_SERVER_WORKERS": " 3 ",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "20",
            "SAGEMAKER_STARTUP_TIMEOUT": "30",
            "SAGEMAKER_MAX_REQUEST_SIZE": "1000",
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv",
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "warning",
            "SAGEMAKER_MULTI_MODEL": "True",
            "SAGEMAKER_PROGRAM": "mine.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "file:///opt/ml/model/code",
            "BYOC_MODEL_DIR": "/models",
            "BYOC_MAX_PIXELS": "5",
            "BYOC_PICTURE_BYTES": "6",
            "BYOC_THREADS": "2",
            "BYOC_QUEUE_SIZE": "0",
            "BYOC_PAGE": "true",
            "BYOC_USER": "nobody",
            "BYOC_TARGET": "serve",
        }
    )
    assert settings == Settings(
        model_dir=Path("/models"),
        port=9000,
        workers=3,
        threads=2,
        timeout=20,
        startup_timeout=30,
        max_request_bytes=1000,
        default_accept="text/csv",
        log_level=30,
        multi_model=True,
        page=True,
        max_pixels=5,
        image_bytes=6,
        queue_size=0,
        program="mine.py",
        submit_directory=Path("/opt/ml/model/code"),
        user="nobody",
        target="serve",
    )


def test_what_the_sdk_leaves_empty_or_puts_there_for_others() -> None:
    settings = Settings.read({"SAGEMAKER_PROGRAM": "", "SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/code.tar.gz"})
    assert (settings.program, settings.submit_directory) == (None, None)


@pytest.mark.parametrize(("level", "expected"), [("20", 20), ("0", 20), ("debug", 10), ("35", 35), ("FATAL", 50)])
def test_log_levels(level: str, expected: int) -> None:
    assert Settings.read({"SAGEMAKER_CONTAINER_LOG_LEVEL": level}).log_level == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "32767", "a whole number from 1 to 32766"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0", "a whole number from 1 to 512"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "1.5", "a whole number"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "-1", "a whole number"),
        ("SAGEMAKER_MAX_REQUEST_SIZE", "6MB", "a whole number"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB", "a whole number"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "verbose", "a number or one of CRITICAL"),
        ("SAGEMAKER_MULTI_MODEL", "1", "true or false"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/html", "application/json"),
        ("BYOC_THREADS", "²", "a whole number"),
    ],
)
def test_errors_name_key_value_and_expectation(key: str, value: str, expected: str) -> None:
    with pytest.raises(ServeError) as caught:
        Settings.read({key: value})
    line = str(caught.value)
    assert line.startswith(f"{key}: ")
    assert expected in line
    assert value in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["0", "32767", "\u0668\u0660\u0668\u0660", "1e3"])
def test_a_port_is_a_number_as_people_write_it(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a whole number from 1 to 32766"):
        _port(text)
    assert _port("8080") == 8080
