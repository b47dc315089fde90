"""Models that cannot be served: the program ends soon, not with 0, and one line says which file and why."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from container_serve import artifact
from tests.conftest import both_engines_in_full
from tests.contract.models import write_model
from tests.contract.serving import one_line, serving

SECONDS = 15


def refusal(model: Path, folder: Path, env: dict[str, str] | None = None, kind: str = "process") -> str:
    with serving(model, folder, env, ready=False, kind=kind) as server:
        begun = time.monotonic()
        code = server.process.wait(60)
        assert time.monotonic() - begun < SECONDS
        assert code not in (0, None)
        assert list(server.tmp.iterdir()) == []
        return one_line(server.err.read_text())


def change_json(model: Path, **changes: Any) -> None:
    document = json.loads((model / artifact.MODEL_JSON).read_text())
    del document[artifact.CHECKSUM]
    (model / artifact.MODEL_JSON).write_text(json.dumps({**document, **changes}))


def rename_a_class(model: Path) -> None:
    path = model / artifact.MODEL_JSON
    path.write_text(path.read_text().replace('"red"', '"rad"'))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@both_engines_in_full
@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda model: (model / "model.json").unlink(), ["model.json", "missing"]),
        (lambda model: (model / "model.bin").unlink(), ["model.bin", "missing"]),
        (lambda model: flip_a_bit(model / "model.bin"), ["model.bin", "corrupt"]),
        (lambda model: flip_a_bit(model / "model.xml"), ["model.xml", "corrupt"]),
        (lambda model: os.truncate(model / "model.bin", 10), ["model.bin", "truncated"]),
        (lambda model: change_json(model, format_version=2), ["model.json", "newer"]),
        (lambda model: change_json(model, classes=["red", "green"]), ["model.xml", "3 outputs", "2 classes"]),
        (lambda model: (model / "model.json").write_text("{"), ["model.json", "not JSON"]),
        (lambda model: rename_a_class(model), ["model.json", "corrupt"]),
    ],
)
def test_a_damaged_model_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], parts: list[str], kind: str
) -> None:
    model = write_model(tmp_path / "model")
    damage(model)
    line = refusal(model, tmp_path / "run", kind=kind)
    assert [part for part in parts if part not in line] == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere: there is no such folder" in refusal(tmp_path / "nowhere", tmp_path / "run")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"packed")
    assert "model.tar.gz: is a file, not the model's folder; unpack" in refusal(archive, tmp_path / "run")


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    described = artifact.read(model)
    (model / "model.xml").write_text("<net>")
    artifact.write(
        model,
        classes=described.classes,
        architecture="tiny",
        preprocessing=described.preprocessing,
        precision="fp32",
    )
    assert "model.xml: is no readable graph" in refusal(model, tmp_path / "run")


def test_a_model_that_does_not_load_in_time(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(
        "import time\ndef model_fn(directory): time.sleep(60)\ndef predict_fn(batch, model): ...\n"
    )
    line = refusal(model, tmp_path / "run", {"SAGEMAKER_STARTUP_TIMEOUT": "4"})
    assert "no worker was ready after 4 s (SAGEMAKER_STARTUP_TIMEOUT)" in line


def test_workers_that_die_while_loading_without_a_word(tmp_path: Path) -> None:
    """As the kernel ends them when memory runs out."""
    model = write_model(tmp_path / "model")
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert "workers died while they loaded the model" in refusal(model, tmp_path / "run")


def test_workers_that_cannot_be_replaced_end_the_program(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with serving(model, tmp_path / "run") as server:
        (model / "model.xml").unlink()
        family = server.python()
        for process in family:
            process.kill()
        assert server.process.wait(60) == 1
        assert "model.xml: missing" in one_line(server.err.read_text())
        assert list(server.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "two", "a whole number"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "0", "a whole number from 1"),
        ("SAGEMAKER_BIND_TO_PORT", "40000", "to 32766"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud", "DEBUG"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png", "text/csv"),
        ("SAGEMAKER_MULTI_MODEL", "yes", "true or false"),
        ("SAGEMAKER_PROGRAM", "mine.py", "a file in"),
        ("SAGEMAKER_PROGRAM", "inference.py", "a file in"),
    ],
)
def test_a_setting_that_is_wrong(tmp_path: Path, key: str, value: str, expected: str) -> None:
    line = refusal(write_model(tmp_path / "model"), tmp_path / "run", {key: value})
    assert key in line
    assert repr(value) in line
    assert expected in line
