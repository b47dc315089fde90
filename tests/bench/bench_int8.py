"""The forward pass alone, one picture on one thread: `python tests/bench/bench_int8.py [--out FILE]`.

OpenVINO fp32, bf16 and int8 beside ONNX Runtime fp32 and int8, of the same random ResNet50, quantised on the same
pictures (by NNCF, and by ONNX Runtime's own static quantisation, per channel), taking turns. Then OpenVINO's again in a
process that is held to the instructions of older processors (ONEDNN_MAX_CPU_ISA), for which ONNX Runtime has no switch;
where the limit breaks OpenVINO, that precision is passed over. Times are of processor time, which other work on the
machine disturbs least.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve.predictor import load_openvino
from container_serve.preprocess import Preprocessing, preprocess
from tests.bench.arguments import new_file, whole
from tests.bench.servers import SMALL, pictures, prepare

ISAS = {"": "as it is", "AVX2": "AVX2", "AVX512_CORE": "AVX-512 without VNNI"}


def tensors(spec: Preprocessing) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [preprocess(body, spec)[None] for body in pictures()[SMALL]]


def openvino(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """A function for each precision, on one thread."""
    core = load_openvino().Core()
    result: dict[str, Callable[[Any], Any]] = {}
    for name, graph, hint in (("fp32", "fp32", "f32"), ("bf16", "fp32", "bf16"), ("int8", "int8", "f32")):
        settings = {
            "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1",
            "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": hint,
        }  # fmt: skip
        try:
            compiled = core.compile_model(core.read_model(folder / f"{graph}.xml"), "CPU", settings)
        except RuntimeError as error:  # it looks at the processor in places where oneDNN keeps to the limit
            print(f"OpenVINO {name}: {error}", file=sys.stderr)
            continue
        result[f"OpenVINO {name}"] = partial(_infer, compiled.create_infer_request())
    return result


def _infer(request: Any, x: Any) -> Any:
    return request.infer([x], share_inputs=True)[0]


def _run(session: Any, x: Any) -> Any:
    return session.run(None, {"picture": x})[0]


def onnxruntime(folder: Path, calibration: list[Any]) -> dict[str, Callable[[Any], Any]]:
    # A package that is not here, for types narrower than int8: only their names are asked for.
    narrow = types.ModuleType("ml_dtypes")
    vars(narrow).update({name: type(name, (), {}) for name in ("float8_e4m3fn", "int4", "uint4")})
    sys.modules.setdefault("ml_dtypes", narrow)
    import onnxruntime as ort
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.items = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            item = next(self.items, None)
            return None if item is None else {"picture": item}

    ready, graph = str(folder / "ready.onnx"), str(folder / "int8.onnx")
    q.quant_pre_process(str(folder / "model.onnx"), ready, skip_symbolic_shape=True)
    # Unsigned activations: the combination for which it has fast kernels on x86-64.
    q.quantize_static(
        ready, graph, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
    )  # fmt: skip
    result: dict[str, Callable[[Any], Any]] = {}
    for name, file in (("fp32", "model.onnx"), ("int8", "int8.onnx")):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
        result[f"ONNX Runtime {name}"] = partial(_run, session)
    return result


def race(functions: dict[str, Callable[[Any], Any]], inputs: list[Any], turns: int) -> dict[str, list[float]]:
    """Milliseconds of processor time a picture, a value for each turn."""
    values: dict[str, list[float]] = defaultdict(list)
    for function in functions.values():
        function(inputs[0])
    for turn in range(turns):
        for name, function in functions.items() if turn % 2 else reversed(functions.items()):
            started = time.process_time()
            for x in inputs:
                function(x)
            values[name].append(1e3 * (time.process_time() - started) / len(inputs))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=whole, default=10, help="(default: %(default)s)")
    parser.add_argument("--out", type=new_file, help="file for the figures, as JSON")
    parser.add_argument("--graphs", type=Path, help=argparse.SUPPRESS)  # in the processes of other instruction sets
    options = parser.parse_args()
    spec = Preprocessing(232, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    if options.graphs:
        print(json.dumps(race(openvino(options.graphs), tensors(spec), options.turns)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as name:
        folder = Path(name)
        made = prepare(folder, None)
        inputs = tensors(spec)
        for suffix in ("xml", "bin"):
            (made / f"model.{suffix}").rename(folder / f"int8.{suffix}")
            (folder / "fp32" / f"model.{suffix}").rename(folder / f"fp32.{suffix}")
        rows = []
        command = f"python tests/bench/bench_int8.py --turns {options.turns}"
        for isa, words in ISAS.items():
            if isa:
                environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
                again = [sys.executable, __file__, "--graphs", name, "--turns", str(options.turns)]
                done = subprocess.run(again, env=environment, stdout=subprocess.PIPE, check=True, timeout=600)
                values = json.loads(done.stdout)
            else:
                values = race({**openvino(folder), **onnxruntime(folder, inputs)}, inputs, options.turns)
            for what, each in values.items():
                rows.append(
                    {
                        "name": f"forward: {what}, {words}", "goal": "", "measured": round(statistics.median(each), 2),
                        "unit": "ms", "spread": [round(min(each), 2), round(max(each), 2)],
                        "repetitions": len(each), "command": command,
                    }
                )  # fmt: skip
                print(f"{words:22} {what:20} {statistics.median(each):8.2f} ms ({min(each):.2f} to {max(each):.2f})")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
