"""Compiles the front end (src/main/java) into frontend.jar: `python -m container_serve.frontend.build [--check]`.

Needs a JDK (javac on PATH, any version from 11 on that still knows `--release 8`). The jar is the same byte for byte
whenever and wherever it is built with the same javac; `--check` builds it aside and compares, for CI.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
JAR = HERE / "frontend.jar"


def model_server_jar() -> Path:
    spec = find_spec("mms")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "multi-model-server is not installed in this environment: pip install multi-model-server==1.1.11"
        )
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def build(jar: Path) -> None:
    javac = shutil.which("javac")
    if javac is None:
        raise SystemExit("javac is not on PATH: install a JDK, for example Debian's openjdk-17-jdk-headless")
    with tempfile.TemporaryDirectory() as classes:
        sources = [str(path) for path in sorted(HERE.glob("src/main/java/**/*.java"))]
        command = [javac, "--release", "8", "-Xlint:all,-options,-processing,-classfile", "-proc:none"]
        # -g:none: without debug tables different releases of javac agree on the bytes
        command += ["-g:none", "-encoding", "UTF-8", "-cp", str(model_server_jar()), "-d", classes, *sources]
        if subprocess.run(command).returncode != 0:
            raise SystemExit("the front end does not compile; nothing was written")
        with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(Path(classes).glob("**/*.class")):
                entry = zipfile.ZipInfo(path.relative_to(classes).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the Java front end.")
    parser.add_argument("--check", action="store_true", help="compare with the jar in the repository instead")
    if not parser.parse_args().check:
        build(JAR)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / JAR.name
        build(fresh)
        if fresh.read_bytes() != JAR.read_bytes():
            sys.exit(f"{JAR} is not what its sources compile to: run python -m container_serve.frontend.build")


if __name__ == "__main__":
    main()
