"""A user's own code/inference.py, with any of the toolkit's functions."""

import base64
import json
from pathlib import Path

import pytest

from container_serve import artifact
from tests.conftest import both_engines_in_full, need
from tests.contract.models import picture, write_model
from tests.contract.serving import access_lines, one_line, serving, until

ALL_FOUR = """
import json, os

def model_fn(model_dir):
    return {"folder": sorted(os.listdir(model_dir))}

def input_fn(body, content_type):
    return {"type": content_type, "bytes": len(body)}

def predict_fn(data, model):
    return {**data, **model}

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""


@pytest.fixture(autouse=True)
def torch() -> None:
    import importlib.util

    need(importlib.util.find_spec("torch"), "torch, without which own programs are refused")


def with_code(model: Path, text: str, name: str = "inference.py") -> Path:
    code = model / artifact.CODE
    code.mkdir(parents=True)
    (code / name).write_text(text)
    return model


def instances(*bodies: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(body).decode()} for body in bodies]}).encode()


def test_all_functions_without_an_artifact(tmp_path: Path) -> None:
    model = with_code(tmp_path / "model", ALL_FOUR)
    (model / "weights.bin").write_bytes(b"mine")
    with serving(model, tmp_path / "run") as server:
        answer = server.invoke(b"\x00\x01\x02", "application/x-mine")
        assert answer.json() == {"type": "application/x-mine", "bytes": 3, "folder": ["code", "weights.bin"]}
        assert answer.headers["content-type"] == "application/json"
        assert server.invoke(b'{"a": 1}', "application/json").json()["bytes"] == 8


def test_a_transform_fn(tmp_path: Path) -> None:
    text = (
        "def model_fn(model_dir): return 'm'\n"
        "def transform_fn(model, body, content_type, accept): return f'{model} {accept}', 'text/plain'\n"
    )
    with serving(with_code(tmp_path / "model", text), tmp_path / "run") as server:
        answer = server.invoke(b"x", "text/plain", Accept="text/plain")
        assert (answer.body, answer.headers["content-type"]) == (b"m text/plain", "text/plain")


def test_one_function_beside_our_defaults(tmp_path: Path) -> None:
    text = """
import helper

def predict_fn(batch, model):
    assert batch.shape == (1, 3, 32, 32), batch.shape
    return helper.turned(model.probabilities(batch))
"""
    model = with_code(write_model(tmp_path / "model"), text, "mine.py")
    (model / "code" / "helper.py").write_text("def turned(x): return x[:, ::-1]\n")
    env = {"SAGEMAKER_PROGRAM": "mine.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(model / "code")}
    with serving(model, tmp_path / "run", env) as server:
        answer = server.invoke(picture("red"))
        assert answer.json()["predictions"][0]["label"] == "blue"
        assert server.invoke(picture("red"), Accept="text/csv").body.startswith(b"0,2,blue,")
        predictions = server.invoke(instances(b"no picture", picture("red")), "application/json").json()["predictions"]
        assert predictions[0]["error"]["type"] == "InvalidImage"  # the program sees the other one alone
        assert predictions[1][0]["label"] == "blue"
        line = next(line for line in access_lines(server) if line["id"] == answer.headers["x-request-id"])
        assert float(line["model_ms"]) > 0


def test_an_answer_that_comes_in_pieces(tmp_path: Path) -> None:
    """More headers than fit into what is read at a time: the model server's own decoder gave up on that."""
    text = """
def output_fn(prediction, accept, context):
    for i in range(80):
        context.set_response_header(0, f"X-Long-{i}", "v" * (40 + i % 7))
    return "x" * 300_000, "text/plain"
"""
    with serving(with_code(write_model(tmp_path / "model"), text), tmp_path / "run") as server:
        answer = server.invoke(picture("red"))
        assert (answer.status, len(answer.body)) == (200, 300_000)
        assert answer.headers["x-long-79"] == "v" * 42


def test_what_fails_inside_stays_inside(tmp_path: Path) -> None:
    text = """
from sagemaker_inference.errors import BaseInferenceToolkitError

def output_fn(prediction, accept):
    if accept == "text/teapot":
        raise BaseInferenceToolkitError(418, "short and stout", "teapot")
    print("my own line")
    raise KeyError("secret")
"""
    with serving(with_code(write_model(tmp_path / "model"), text), tmp_path / "run") as server:
        answer = server.invoke(picture("red"))
        assert (answer.status, answer.json()["type"]) == (500, "InternalError")
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        request_id = answer.headers["x-request-id"]
        assert request_id in answer.json()["message"]
        words = f"ERROR worker: id={request_id}"  # it comes by a pipe of its own, maybe after the answer
        until(lambda: words in server.log(), "the worker's line", 10)
        logged = next(line for line in server.log().splitlines() if words in line)
        assert "KeyError: 'secret'" in logged
        assert "my own line" in server.log()
        answer = server.invoke(picture("red"), Accept="text/teapot")
        assert (answer.status, answer.json()["message"]) == (418, "short and stout")
        assert server.invoke(b"no picture").status == 400  # our input_fn still decides about bodies
        # An output_fn that knows of no errors gets all pictures of a request, or none.
        answer = server.invoke(instances(picture("red"), b"no picture"), "application/json")
        assert (answer.status, answer.json()["message"].partition(": ")[0]) == (400, "instances[1]")


def test_pickled_bodies_are_not_opened(tmp_path: Path) -> None:
    """The toolkit's own input_fn would run what this body says."""
    import io

    import numpy as np

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "opened",)

    body = io.BytesIO()
    np.save(body, np.array([Payload()], dtype=object), allow_pickle=True)
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        assert server.invoke(body.getvalue(), "application/x-npy").status == 415
    assert not (tmp_path / "opened").exists()


def refusal(model: Path, folder: Path, env: dict[str, str] | None = None, kind: str = "process") -> str:
    with serving(model, folder, env, ready=False, kind=kind) as server:
        assert server.process.wait(60) == 1
        return one_line(server.err.read_text())


def test_an_image_without_torch_names_the_one_with_it(tmp_path: Path) -> None:
    model = with_code(write_model(tmp_path / "model"), ALL_FOUR)
    line = refusal(model, tmp_path / "run", {"BYOC_TARGET": "serve"})
    assert "code/inference.py" in line
    assert "serve-torch" in line


@both_engines_in_full
@pytest.mark.parametrize(
    ("text", "artifact_too", "parts"),
    [
        ("import nothing_like_this\n", True, ["ModuleNotFoundError", "nothing_like_this"]),
        (
            "def model_fn(model_dir): raise OSError('no\\nweights')\n" + "def predict_fn(a, b): ...\n",
            True,
            ["no weights"],
        ),
        ("def model_fn(model_dir): ...\n", True, ["inference.py", "predict_fn"]),
        ("def predict_fn(a, b): ...\n", False, ["inference.py", "model_fn, input_fn, output_fn", "model.json"]),
        ("def transform_fn(a, b, c, d): ...\ndef input_fn(a, b): ...\n", True, ["transform_fn"]),
    ],
)
def test_a_program_that_cannot_work_ends_the_server(
    tmp_path: Path, text: str, artifact_too: bool, parts: list[str], kind: str
) -> None:
    model = tmp_path / "model"
    if artifact_too:
        write_model(model)
    line = refusal(with_code(model, text), tmp_path / "run", kind=kind)
    assert [part for part in parts if part not in line] == []


def test_files_in_the_model_s_folder_do_not_replace_python_s_own(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    described = artifact.read(model)
    (model / "random.py").write_text("raise SystemExit('imported')\n")
    artifact.write(
        model, classes=described.classes, architecture="tiny", preprocessing=described.preprocessing, precision="fp32"
    )
    with serving(model, tmp_path / "run") as server:
        assert server.invoke(picture("red")).status == 200
        assert "imported" not in server.log()
