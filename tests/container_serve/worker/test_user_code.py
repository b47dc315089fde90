from pathlib import Path

import pytest

from container_serve.errors import ServeError
from container_serve.settings import Settings
from container_serve.worker import user_code


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def code(model: Path, name: str = "inference.py", folder: str = "code") -> Path:
    (model / folder).mkdir(parents=True, exist_ok=True)
    (model / folder / name).write_text("")
    return model / folder


def test_a_model_without_a_program(tmp_path: Path) -> None:
    assert user_code.find(Settings.read({}), tmp_path) is None
    assert user_code.find(Settings.read({"SAGEMAKER_PROGRAM": ""}), tmp_path) is None


def test_where_a_program_is_found(tmp_path: Path) -> None:
    folder = code(tmp_path)
    assert user_code.find(Settings.read({}), tmp_path) == folder / "inference.py"
    code(tmp_path, "mine.py")
    for name in ("mine.py", "mine"):
        assert user_code.find(Settings.read({"SAGEMAKER_PROGRAM": name}), tmp_path) == folder / "mine.py"
    code(tmp_path, "deep.py", "code/package")
    env = {"SAGEMAKER_PROGRAM": "package/deep.py"}
    assert user_code.find(Settings.read(env), tmp_path) == folder / "package" / "deep.py"
    elsewhere = code(tmp_path, folder="elsewhere")
    env = {"SAGEMAKER_SUBMIT_DIRECTORY": str(elsewhere)}
    assert user_code.find(Settings.read(env), tmp_path) == elsewhere / "inference.py"


def test_a_named_program_has_to_be_there(tmp_path: Path) -> None:
    for name in ("mine.py", "inference.py"):  # the latter is also the name of a program that nobody named
        with pytest.raises(ServeError, match=rf"SAGEMAKER_PROGRAM: got '{name}', expected a file in .*/code"):
            user_code.find(Settings.read({"SAGEMAKER_PROGRAM": name}), tmp_path)


def test_without_torch_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code(tmp_path)
    with pytest.raises(ServeError, match="serve-torch"):
        user_code.find(Settings.read({"BYOC_TARGET": "serve"}), tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServeError, match="serve-torch"):
        user_code.find(Settings.read({}), tmp_path)
