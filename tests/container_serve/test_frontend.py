"""The front end: its build from locked files, its tests in Java, the jar in the repository."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_serve.frontend import archive, build, repository
from container_serve.supervisor import configuration
from tests.conftest import need
from tests.docker.index import http_server

ROOT = Path(__file__).parents[2]
MIRROR = """<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">
  <servers><server><id>ours</id><username>me</username><password>${{env.WORD}}</password></server></servers>
  <mirrors>
    <mirror><id>http</id><mirrorOf>external:http:*</mirrorOf><url>http://blocked.example</url></mirror>
    <mirror><id>ours</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>
  </mirrors>
</settings>"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Maven has built the front end, offline, from locked files."""
    need(shutil.which("mvn") and shutil.which("javac"), "Maven and a JDK")
    folder = tmp_path_factory.mktemp("frontend")
    build.build(folder)
    return folder


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images' class path."""
    need(shutil.which("mvn"), "Maven")
    folder = tmp_path_factory.mktemp("lib")
    build.lay_out(folder)
    return folder


def test_the_jar_is_what_its_sources_compile_to(built: Path) -> None:
    assert (built / "target" / "frontend.jar").read_bytes() == build.JAR.read_bytes(), (
        "run container_serve.frontend.build"
    )


def test_the_tests_in_java_have_run_and_passed(built: Path) -> None:
    suites = [ElementTree.parse(file).getroot() for file in (built / "target" / "surefire-reports").glob("*.xml")]
    assert {suite.get("name") for suite in suites} == {
        source.relative_to(build.HERE / "src/test/java").with_suffix("").as_posix().replace("/", ".")
        for source in build.HERE.glob("src/test/java/**/*Test.java")
    }
    assert all(int(suite.get("tests", "0")) > 0 for suite in suites)
    assert {suite.get(kind) for suite in suites for kind in ("failures", "errors", "skipped")} == {"0"}


def test_maven_used_nothing_but_what_is_locked(built: Path) -> None:
    local = repository.fill(None)
    files = [path for path in local.rglob("*") if path.suffix in repository.SUFFIXES]
    digests = {path.relative_to(local).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert digests == repository.read_lock()


def test_every_version_in_the_pom_is_fixed() -> None:
    root = ElementTree.fromstring(re.sub(r' xmlns="[^"]*"', "", (build.HERE / "pom.xml").read_text(), count=1))
    versions = [one.text or "" for one in root.iter("version")]
    versions += [one.text or "" for one in root.iterfind("properties/*") if one.tag.endswith(".version")]
    assert all(re.fullmatch(r"\$\{\w+\.version\}|\d[\w.]*", version) for version in versions), versions
    assert "SNAPSHOT" not in "".join(versions)
    plugins = list(root.iterfind("build/plugins/plugin"))
    assert all(plugin.findtext("version") for plugin in plugins)
    # Those of Maven's own life cycle, whose versions are those of the Maven that happens to run.
    for name in ("resources", "compiler", "surefire", "jar", "clean", "install", "deploy"):
        assert f"maven-{name}-plugin" in {plugin.findtext("artifactId") for plugin in plugins}


class Files(http.server.BaseHTTPRequestHandler):
    """A mirror that wants a password, and has one file."""

    def do_GET(self) -> None:
        known = self.path == "/m2/a/a.jar" and self.headers["Authorization"] == "Basic bWU6c2VjcmV0"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b"jar" if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Maven settings that name a mirror, and an empty cache."""
    need(shutil.which("mvn"), "Maven")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WORD", "secret")
    with http_server(Files) as port:
        settings = tmp_path / "settings.xml"
        settings.write_text(MIRROR.format(of="*,!else", url=f"http://127.0.0.1:{port}/m2/"))
        yield settings


def test_a_file_comes_from_the_mirror_of_the_settings(mirror: Path, tmp_path: Path) -> None:
    lock = tmp_path / "maven.lock"
    lock.write_text(f"# comment\n{hashlib.sha256(b'jar').hexdigest()}  a/a.jar\n")
    local = repository.fill(mirror, lock)
    assert (local / "a" / "a.jar").read_bytes() == b"jar"
    mirror.write_text("")  # the second time it is there
    assert repository.fill(mirror, lock) == local
    # A file that somebody has changed is not trusted.
    (local / "a" / "a.jar").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"settings\.xml: cannot be read as Maven settings"):
        repository.fill(mirror, lock)


def test_a_file_of_another_hash_stops_the_build_before_anything_is_used(mirror: Path, tmp_path: Path) -> None:
    lock = tmp_path / "maven.lock"
    lock.write_text(f"{'0' * 64}  a/a.jar\n")
    with pytest.raises(SystemExit, match=r"a/a\.jar: its SHA-256 is [0-9a-f]{64}, not 0{64}") as stop:
        repository.fill(mirror, lock)
    assert "\n" not in str(stop.value)
    assert list(tmp_path.rglob("a.jar")) == []


def test_a_file_that_the_mirror_does_not_have_is_one_line(mirror: Path, tmp_path: Path) -> None:
    lock = tmp_path / "maven.lock"
    lock.write_text(f"{'0' * 64}  b/b.jar\n")
    with pytest.raises(SystemExit, match=r"^b/b\.jar: cannot be downloaded \(HTTP Error 401") as stop:
        repository.fill(mirror, lock)
    assert "secret" not in str(stop.value)


@pytest.mark.parametrize(("of", "used"), [("central", True), ("*", True), ("external:*", True), ("*,!central", False)])
def test_a_mirror_counts_where_it_stands_for_central(of: str, used: bool, tmp_path: Path) -> None:
    need(shutil.which("mvn"), "Maven")
    settings = tmp_path / "settings.xml"
    settings.write_text(MIRROR.format(of=of, url="https://mirror.example/m2"))
    assert (repository.find_source(settings)[0] == "https://mirror.example/m2") == used


def test_without_settings_the_files_come_from_where_maven_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(shutil.which("mvn"), "Maven")
    settings = tmp_path / "settings.xml"
    settings.write_text("<settings/>")
    assert repository.find_source(settings)[0].startswith("https://")


def test_the_images_class_path_has_one_netty_and_one_log4j(libraries: Path) -> None:
    owners: dict[str, list[str]] = {}
    for jar in libraries.glob("*.jar"):
        with zipfile.ZipFile(jar) as archived:
            for name in set(archived.namelist()):
                if name.endswith((".class", ".so", ".dat")) and "module-info" not in name and "versions/" not in name:
                    owners.setdefault(name, []).append(jar.name)
    assert {name: jars for name, jars in owners.items() if len(jars) > 1} == {}
    [epoll] = owners["META-INF/native/libnetty_transport_native_epoll_x86_64.so"]
    assert epoll.endswith("Final-linux-x86_64.jar")
    assert owners["org/slf4j/impl/StaticLoggerBinder.class"][0].startswith("log4j-slf4j-impl-")
    assert owners["com/amazonaws/ml/mms/ModelServer.class"] == ["model-server.jar"]


def test_the_server_takes_the_libraries_where_they_are(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "LIBRARIES", libraries)
    with_them = configuration.class_path().split(os.pathsep)
    assert with_them[-1] == str(configuration.FRONT_END)
    assert with_them[:-1] == sorted(str(jar) for jar in libraries.glob("*.jar"))
    assert str(configuration.model_server_jar()) not in with_them
    monkeypatch.setattr(configuration, "LIBRARIES", libraries / "absent")
    without = [str(configuration.model_server_jar()), str(configuration.FRONT_END)]
    assert configuration.class_path().split(os.pathsep) == without


def test_the_classes_can_be_archived_for_a_quick_start(tmp_path: Path) -> None:
    path = tmp_path / "frontend.jsa"
    archive.make(path)
    # -Xshare:on fails where -Xshare:auto, the default, would go on without an archive that does not fit.
    strict = [configuration.java(), "-XX:+UseSerialGC", "-Xshare:on", f"-XX:SharedArchiveFile={path}"]
    done = subprocess.run([*strict, "-cp", configuration.class_path(), "-version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_has_its_class_and_java_17_can_read_it() -> None:
    with zipfile.ZipFile(build.JAR) as jar:
        names = [name for name in jar.namelist() if name.endswith(".class")]
        for source in build.HERE.glob("src/main/java/**/*.java"):
            assert source.relative_to(build.HERE / "src/main/java").with_suffix(".class").as_posix() in names
        for name in names:
            assert jar.read(name)[4:8] == b"\x00\x00\x00\x3d"  # class file version 61
        assert len({entry.date_time for entry in jar.infolist()}) == 1
