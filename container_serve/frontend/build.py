"""Builds the front end (pom.xml, src) with Maven: `python -m container_serve.frontend.build`.

Writes frontend.jar, which runs without Docker use as it is in the repository: the same bytes whenever it is built
with Java 17's javac. `--lib DIR` also lays out the images' class path; `--lock` resolves the POM's versions again and
writes maven.lock. Needs a JDK 17 and Maven 3.8 (Debian's are good).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from container_serve.errors import ServeError
from container_serve.frontend import repository
from container_serve.supervisor.configuration import model_server_jar

HERE = Path(__file__).parent
JAR = HERE / "frontend.jar"
# The libraries that the images take from Maven, and what then remains of multi-model-server's jar, which has a copy of
# each: two copies of netty's native library are an error to it, and of slf4j's binding a warning at every start.
LIBRARIES = ("io/netty/", "org/apache/logging/log4j/")
KEPT = ("META-INF/MANIFEST.MF", "com/", "software/", "org/apache/commons/", "org/slf4j/")
DROPPED = "org/slf4j/impl/"


def build(target: Path, settings: Path | None = None) -> Path:
    """Compile, test and pack into the folder `target`, offline, from locked files; the jar."""
    nothing = target / "settings.xml"
    nothing.write_text("<settings/>\n")
    local = repository.fill(settings)
    _maven(target, local, "--offline", "--settings", str(nothing), "--global-settings", str(nothing))
    return target / "target" / JAR.name


def lock(settings: Path | None = None) -> None:
    """Build with what the POM's versions resolve to now, and lock that."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "repository"
        _maven(Path(folder), fresh, *(["--settings", str(settings)] if settings else []))
        repository.write_lock(fresh)


def _maven(target: Path, local: Path, *options: str) -> None:
    """`mvn verify` of a copy of the project in `target`, so that nothing is left beside the sources."""
    shutil.copy(HERE / "pom.xml", target)
    shutil.copytree(HERE / "src", target / "src", dirs_exist_ok=True)
    command = ["mvn", "--batch-mode", "--quiet", *options, f"-Dmaven.repo.local={local}"]
    command += [f"-Dmodel-server.jar={model_server_jar()}", "verify"]
    # MAVEN_SKIP_RC: no rc file of the machine's changes what is built.
    done = subprocess.run(command, cwd=target, env=os.environ | {"MAVEN_SKIP_RC": "1"}, stdout=sys.stderr)
    if done.returncode != 0:
        raise SystemExit("the front end does not build: see Maven's messages above; nothing was written")


def lay_out(folder: Path, settings: Path | None = None) -> None:
    """The images' class path in `folder`: current netty and log4j, and multi-model-server without its own."""
    local = repository.fill(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        for jar in (local / library).rglob("*.jar"):
            shutil.copy(jar, folder)
    with zipfile.ZipFile(model_server_jar()) as old, zipfile.ZipFile(folder / "model-server.jar", "w") as new:
        for entry in old.infolist():
            name = entry.filename
            # Some entries are there twice; the first one is what Java sees.
            if name.startswith(KEPT) and not name.startswith(DROPPED) and name not in new.NameToInfo:
                new.writestr(entry, old.read(entry), zipfile.ZIP_DEFLATED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Java front end with Maven.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--lock", action="store_true", help="write maven.lock instead")
    action.add_argument("--lib", type=Path, metavar="DIR", help="write the images' class path there, too")
    parser.add_argument("--settings", type=Path, help="Maven settings (default: ~/.m2/settings.xml, then Maven's own)")
    given = parser.parse_args()
    if given.settings and not given.settings.is_file():
        parser.error(f"--settings {given.settings}: no such file")
    if shutil.which("mvn") is None:
        sys.exit("mvn is not on PATH: install Maven and a JDK, for example Debian's maven and openjdk-17-jdk-headless")
    try:
        if given.lock:
            lock(given.settings)
            return
        with tempfile.TemporaryDirectory() as folder:
            fresh = build(Path(folder), given.settings).read_bytes()
        if given.lib:
            lay_out(given.lib, given.settings)
    except ServeError as error:
        sys.exit(str(error))
    partial = JAR.with_suffix(".partial")
    partial.write_bytes(fresh)
    partial.replace(JAR)


if __name__ == "__main__":
    main()
