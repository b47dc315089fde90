"""Small graphs, made with OpenVINO's own operations, saved and read as training's are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from container_serve.artifact import GRAPH, GRAPH_WEIGHTS, Artifact, write
from container_serve.errors import ArtifactError
from container_serve.predictor import MAX_BATCH, Prediction, Predictor, softmax, top
from container_serve.preprocess import Preprocessing

ROOT = Path(__file__).parents[2]
SIDE = 32
SPEC = Preprocessing(SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


def graph(shape: list[int], weights: np.ndarray[Any, Any], outputs: int = 1) -> openvino.Model:
    """Logits = mean of each channel over the picture, times `weights` (3, classes)."""
    picture = ops.parameter(shape, np.float32, name="picture")
    means = ops.reduce_mean(picture, np.array([2, 3]), keep_dims=False)
    logits = ops.matmul(means, ops.constant(weights.astype(np.float32)), False, False)
    return openvino.Model([logits] * outputs, [picture])


def save(
    directory: Path, model: openvino.Model | None = None, classes: str = "abcd", precision: str = "fp32"
) -> Artifact:
    model = model or graph([-1, 3, SIDE, SIDE], np.random.default_rng(0).normal(size=(3, 4)))
    openvino.save_model(model, directory / GRAPH, compress_to_fp16=False)
    return write(directory, classes=list(classes), architecture="mean", preprocessing=SPEC, precision=precision)


def pictures(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, MAX_BATCH, 2 * MAX_BATCH + 1])
def test_probabilities_are_the_softmax_of_the_logits(tmp_path: Path, count: int) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 4)) * 5
    predictor = Predictor(save(tmp_path, graph([-1, 3, SIDE, SIDE], weights)))
    predictor.warm_up()
    batch = pictures(count)
    probabilities = predictor.probabilities(batch)
    logits = batch.astype(np.float64).mean(axis=(2, 3)) @ weights
    powers = np.exp(logits)
    assert probabilities.shape == (count, 4)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next(tmp_path: Path) -> None:
    predictor = Predictor(save(tmp_path), threads=2)
    first = predictor.probabilities(pictures(1))
    kept = first.copy()
    predictor.probabilities(-pictures(1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("content", [None, b"", b"noise", 0.3, 0.9, 1.0])
def test_a_cached_graph_gives_the_same_answers_and_a_cut_one_is_compiled_anew(
    tmp_path: Path, content: bytes | float | None
) -> None:
    artifact, cache = save(tmp_path), tmp_path / "cache"
    first = Predictor(artifact, cache=cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    if content is not None:
        kept.write_bytes(content if isinstance(content, bytes) else whole[: int(content * len(whole))])
    again = Predictor(artifact, cache=cache)
    again.warm_up()
    np.testing.assert_array_equal(again.probabilities(pictures(9)), first.probabilities(pictures(9)))
    assert kept.stat().st_size == len(whole)


def test_a_view_is_taken_as_well_as_a_contiguous_batch(tmp_path: Path) -> None:
    predictor = Predictor(save(tmp_path))
    batch = pictures(4)
    np.testing.assert_array_equal(predictor.probabilities(batch[::2]), predictor.probabilities(batch)[::2])


def test_fp32_is_computed_in_32_bits(tmp_path: Path) -> None:
    # 1 + 1/512 is 1 in bf16: a CPU that has bf16 would use it unasked.
    weights = np.zeros((3, 4))
    weights[0] = [1 + 1 / 512, 1, 1, 1]
    predictor = Predictor(save(tmp_path, graph([-1, 3, SIDE, SIDE], weights)))
    first, second, *_ = predictor.probabilities(np.full((1, 3, SIDE, SIDE), 8, dtype=np.float32))[0]
    assert first / second == pytest.approx(np.exp(8 / 512), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_are_served(tmp_path: Path, precision: str) -> None:
    probabilities = Predictor(save(tmp_path, precision=precision)).probabilities(pictures(2))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_an_unknown_precision_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="precision: expected one of fp32, bf16, int8, got 'fp8'"):
        Predictor(save(tmp_path, precision="fp8"))


@pytest.mark.parametrize("classes", ["abc", "abcde"])
def test_a_class_count_that_does_not_fit_is_refused(tmp_path: Path, classes: str) -> None:
    with pytest.raises(ArtifactError, match=f"model.xml: has 4 outputs, but model.json lists {len(classes)} classes"):
        Predictor(save(tmp_path, classes=classes))


@pytest.mark.parametrize("shape", [[-1, 3, 64, 64], [-1, 1, SIDE, SIDE], [1, 3, SIDE, SIDE]])
def test_a_graph_for_other_pictures_is_refused(tmp_path: Path, shape: list[int]) -> None:
    model = graph(shape, np.zeros((shape[1], 4)))
    with pytest.raises(ArtifactError, match=r"model.xml: takes input .*, expected \[\?,3,32,32\]"):
        Predictor(save(tmp_path, model))


def test_a_graph_for_pictures_of_any_side_is_taken(tmp_path: Path) -> None:
    predictor = Predictor(save(tmp_path, graph([-1, 3, -1, -1], np.ones((3, 4)))))
    assert predictor.probabilities(pictures(1)).shape == (1, 4)


def test_a_graph_with_two_outputs_is_refused(tmp_path: Path) -> None:
    model = graph([-1, 3, SIDE, SIDE], np.ones((3, 4)), outputs=2)
    with pytest.raises(ArtifactError, match="expected one input and one output, it has 1 and 2"):
        Predictor(save(tmp_path, model))


@pytest.mark.parametrize(
    "text",
    [b"", b"garbage", b'<?xml version="1.0"?><net name="x" version="11">', b'<?xml version="1.0"?><net></net>'],
)
def test_an_unreadable_graph_is_told_in_one_line(
    tmp_path: Path, text: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / GRAPH).write_bytes(text)
    (tmp_path / GRAPH_WEIGHTS).write_bytes(b"")
    artifact = write(tmp_path, classes=["a"], architecture="r", preprocessing=SPEC, precision="fp32")
    with pytest.raises(
        ArtifactError, match=r"^model.xml: is no readable graph \(.+\); export the model again$"
    ) as caught:
        Predictor(artifact)
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_artifact_without_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    artifact = write(tmp_path, classes=["a"], architecture="r", preprocessing=SPEC, precision="fp32")
    with pytest.raises(ArtifactError, match=r"model\.xml: missing, there is no graph to serve"):
        Predictor(artifact)


def test_values_that_are_not_finite_are_not_answered(tmp_path: Path) -> None:
    model = graph([-1, 3, SIDE, SIDE], np.full((3, 4), np.nan))
    with pytest.raises(ArtifactError, match="not finite"):
        Predictor(save(tmp_path, model)).warm_up()


def test_softmax_is_stable() -> None:
    logits = np.array([[1e30, -1e30, 0], [1000, 1000, -1000], [-1e30, -1e30, -1e30]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        probabilities = softmax(logits)
    expected = np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


def test_top_is_sorted_and_cut_to_the_classes() -> None:
    row = np.array([0.1, 0.4, 0.1, 0.4], dtype=np.float32)
    assert [p.index for p in top(row, "abcd", 3)] == [1, 3, 0]
    assert [p.label for p in top(row, "abcd", 1000)] == ["b", "d", "a", "c"]
    (best,) = top(row, "abcd", 1)
    assert best == Prediction(1, "b", float(np.float32(0.4)))
    assert type(best.probability) is float


def test_openvino_comes_without_telemetry_and_with_its_converter() -> None:
    """In a process of its own, where nothing has imported openvino before."""
    program = (
        "import sys\n"
        "from container_serve import predictor\n"
        "assert 'openvino' not in sys.modules\n"
        "openvino = predictor.load_openvino()\n"
        "assert not any(name.startswith('openvino.tools.ovc') for name in sys.modules)\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
        "assert 'torch' not in sys.modules\n"
        "from openvino.tools import ovc\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


CALLERS = """
import pathlib, sys, threading
import numpy as np
from container_serve import artifact, predictor
made = predictor.Predictor(artifact.read(pathlib.Path(sys.argv[1])), callers=32)
image, begin = np.zeros((1, 3, 32, 32), np.float32), threading.Barrier(32)
def call():
    begin.wait()
    made.probabilities(image)
sys.setswitchinterval(1e-6)
callers = [threading.Thread(target=call) for _ in range(32)]
for caller in callers: caller.start()
for caller in callers: caller.join()
"""


def test_many_first_callers_do_not_wait_for_each_other_forever(tmp_path: Path) -> None:
    """Without the conversion in `core`, about every third of these processes hangs."""
    save(tmp_path)
    for _ in range(5):
        subprocess.run([sys.executable, "-c", CALLERS, str(tmp_path)], cwd=ROOT, timeout=60, check=True)
