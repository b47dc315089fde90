"""The benchmarks of GPUs on this machine, with a few images: that they run, and what they print."""

import json
import subprocess
import sys
from pathlib import Path

# smdebug and openvino are not installed on every machine with a GPU.
WITHOUT = "import runpy, sys; sys.modules |= dict.fromkeys(('smdebug', 'openvino', 'nncf', 'boto3')); sys.argv.pop(0)\n"
RUN = f"{WITHOUT}runpy.run_path(sys.argv[0], run_name='__main__')"


def run(program: str, *words: str) -> str:
    command = [sys.executable, "-c", RUN, str(Path(__file__).with_name(program)), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_benchmark_prints_its_table_and_a_line_of_json() -> None:
    told = json.loads(run("bench_gpu.py", "--turns", "1", "--sizes", "224x224").splitlines()[-1])
    assert set(told["rates"]["224x224"]) == {
        "bare", "loader", "plain", "ours", "loader, started", "first pass"
    }  # fmt: skip
    assert all(values[0] > 0 for values in told["rates"]["224x224"].values())
    assert len(told["ratios"]) == 4


def test_what_is_checked_on_a_gpu_holds_on_a_cpu() -> None:
    assert "FAILED" not in run("check_gpu.py")
