"""The supervisor."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_supervisor_starts_java_before_anything_large_is_imported() -> None:
    large = {"numpy", "PIL", "openvino", "sagemaker_inference", "mms"}
    program = f"import sys, container_serve.supervisor.server; print({large!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
