"""Checks before the toolkit runs; tests/contract has the rest, with the toolkit."""

import json
import re
from pathlib import Path

import pytest

from container_train import configuration
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths
from tests import trees


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("hyperparameters", b'\xef\xbb\xbf{"epochs": "2"}', "cannot be read as a JSON object: "),
        ("hyperparameters", '{"epochs": "2"}'.encode("utf-16"), "cannot be read as a JSON object: "),
        ("hyperparameters", {"sagemaker_mpi_enabled": "true"}, "sagemaker_mpi_enabled is true: this image does not"),
        (
            "hyperparameters",
            {"sagemaker_program": "mine.py", "sagemaker_distributed_dataparallel_enabled": "true"},
            "a program of your own runs under torchrun with {'torch_distributed': {'enabled': True}}",
        ),
        ("resourceconfig", {"current_host": "a", "hosts": None}, 'current_host is "a" and hosts is null: expected'),
        ("resourceconfig", {"hosts": ["a"]}, 'current_host is null and hosts is ["a"]: expected'),
        ("inputdataconfig", None, "inputdataconfig.json cannot be read as a JSON object: Is a directory"),
        ("hyperparameters", b"[]", "cannot be read as a JSON object: it holds an array"),
        ("hyperparameters", b'"epochs"', "cannot be read as a JSON object: it holds a string"),
        ("hyperparameters", b"1.5", "cannot be read as a JSON object: it holds a number"),
        ("hyperparameters", b"true", "cannot be read as a JSON object: it holds a boolean"),
        ("hyperparameters", b"null", "cannot be read as a JSON object: it holds null"),
    ],
)
def test_what_no_job_can_run_with_is_told(name: str, content: object, words: str, tmp_path: Path) -> None:
    base = trees.tree(tmp_path, pictures={"train": 1})
    assert configuration.check(SageMakerPaths(base))[1] == ["localhost"]
    file = base / "input" / "config" / f"{name}.json"
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(TrainError, match=re.escape(words)):
        configuration.check(SageMakerPaths(base))


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, {}, ""),
        ({}, {"sagemaker_program": '"mine.py"'}, "mine.py"),
        ({"SAGEMAKER_PROGRAM": "train.py"}, {}, "train.py"),
        ({"SAGEMAKER_PROGRAM": "train.py"}, {"sagemaker_program": "mine.py"}, "train.py"),  # as the toolkit has it
        ({"SAGEMAKER_PROGRAM": ""}, {}, ""),
        ({"SAGEMAKER_TRAINING_MODULE": "mine:main"}, {}, "mine:main"),
    ],
)
def test_whose_program_is_run(
    environment: dict[str, str], given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAGEMAKER_PROGRAM", "SAGEMAKER_TRAINING_MODULE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert configuration.own_program(given) == expected


@pytest.mark.parametrize("host", ["byoc.invalid", "a" * 64, ".."])
def test_a_name_that_does_not_resolve_is_not_known(host: str) -> None:
    assert configuration.is_known("localhost")
    assert not configuration.is_known(host)
