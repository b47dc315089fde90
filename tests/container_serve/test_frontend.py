"""The compiled front end in the repository is what its sources say."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from container_serve import configuration
from container_serve.frontend import archive, build
from tests.conftest import need

ROOT = Path(__file__).parents[2]


def test_the_jar_is_what_its_sources_compile_to() -> None:
    need(shutil.which("javac"), "javac, a JDK")
    done = subprocess.run(
        [sys.executable, "-m", "container_serve.frontend.build", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_classes_can_be_archived_for_a_quick_start(tmp_path: Path) -> None:
    path = tmp_path / "frontend.jsa"
    archive.make(path)
    jars = f"{configuration.model_server_jar()}{os.pathsep}{configuration.FRONT_END}"
    # -Xshare:on fails where -Xshare:auto, the default, would go on without an archive that does not fit.
    strict = [configuration.java(), "-XX:+UseSerialGC", "-Xshare:on", f"-XX:SharedArchiveFile={path}", "-cp", jars]
    done = subprocess.run([*strict, "-version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_has_its_class_and_java_8_can_read_it() -> None:
    with zipfile.ZipFile(build.JAR) as jar:
        names = set(jar.namelist())
        for source in build.HERE.glob("src/**/*.java"):
            assert source.relative_to(build.HERE / "src").with_suffix(".class").as_posix() in names
        for name in names:
            assert jar.read(name)[4:8] == b"\x00\x00\x00\x34"  # class file version 52
        assert {entry.date_time for entry in jar.infolist()} == {(1980, 1, 1, 0, 0, 0)}
